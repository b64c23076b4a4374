"""Command line: python -m ser_model predict | card | download | explore"""

import argparse
import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path

DEFAULT_MODEL = Path(__file__).resolve().parent.parent / "checkpoints" / "ser-cnn-8"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ser_model", description="Speech emotion recognition.")
    commands = parser.add_subparsers(required=True)

    command = commands.add_parser("predict", help="name the emotion of files or folders of files, as CSV")
    command.add_argument("paths", nargs="+", metavar="FILE_OR_DIR")
    command.add_argument("--model", default=str(DEFAULT_MODEL), help="a local folder or a Hub id")
    command.add_argument("--output", metavar="CSV", help="where the rows go; the terminal if left out")
    command.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    command.set_defaults(run=predict)

    command = commands.add_parser("card", help="write a model's card from its figures and those of other runs")
    command.add_argument("run_dir", type=Path, metavar="RUN", help="the output folder of train.py")
    command.add_argument("--beside", type=Path, nargs="*", default=[], metavar="RUN", help="runs to report beside it")
    command.set_defaults(run=card)

    command = commands.add_parser("download", help="fetch a corpus from its official place, or go on where it stopped")
    command.add_argument("corpus", choices=["ravdess", "tess", "cremad", "savee"])
    command.add_argument("--dest", type=Path, required=True, metavar="DIR", help="the folder of all corpora")
    command.add_argument("--only", choices=["speech", "song"], help="of ravdess, which has both")
    command.add_argument("--keep", action="store_true", help="keep the archives once they are unpacked")
    command.add_argument("--server", metavar="URL", help="where copies of the official hosts answer; see download.py")
    command.set_defaults(run=download)

    command = commands.add_parser("explore", help="write a page, pictures and tables of the data that a config names")
    command.add_argument("--config", required=True, help="a YAML file of configs/")
    command.add_argument("--data-dir", required=True, help="the folder that holds the corpora")
    command.add_argument("--output", required=True, metavar="DIR", help="where index.html, PNGs and CSVs go")
    command.add_argument("--num-proc", type=int, default=os.cpu_count(), help="processes that measure the files")
    command.set_defaults(run=explore_data)

    args = parser.parse_args(arguments)
    return args.run(args)


def predict(args: argparse.Namespace) -> int:
    """Exit status 1 if any file was left without an answer."""
    from .inference import EmotionRecognizer, audio_files, write_predictions

    files = list(audio_files(args.paths))
    if not files:
        sys.exit(f"no audio files in {', '.join(args.paths)}")
    recognizer = EmotionRecognizer.from_pretrained(args.model, device=args.device)
    with open(args.output, "w", newline="", encoding="utf-8") if args.output else nullcontext(sys.stdout) as output:
        answered, failed = write_predictions(recognizer, files, output)
    print(f"{answered} answered, {failed} not", file=sys.stderr)
    return 1 if failed else 0


def card(args: argparse.Namespace) -> int:
    from .labels import label_scheme
    from .reports import model_card
    from .settings import load_settings

    settings = load_settings(args.run_dir / "settings.yaml")
    results = [json.loads((run / "metrics.json").read_text()) for run in (args.run_dir, *args.beside)]
    (args.run_dir / "README.md").write_text(model_card(settings, label_scheme(settings.labels), results))
    return 0


def download(args: argparse.Namespace) -> int:
    """Exit status 1 where something stood in the way, 130 after Ctrl-C."""
    from .download import DownloadError, download

    try:
        download(args.corpus, args.dest, args.only, args.keep, args.server)
    except DownloadError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("stopped; the same command goes on from what has arrived", file=sys.stderr)
        return 130
    return 0


def explore_data(args: argparse.Namespace) -> int:
    from .corpora import CorpusError
    from .explore import explore
    from .labels import LabelError
    from .settings import SettingsError, load_settings

    try:
        settings = load_settings(args.config)
        page = explore(settings, args.data_dir, args.output, progress=True, num_proc=args.num_proc)
    except (SettingsError, CorpusError, LabelError) as error:
        sys.exit(f"explore: {error}")
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
