"""Command line: python -m ser_model predict | timeline | evaluate | card | likeness | join | download | ..."""

import argparse
import io
import json
import os
import shlex
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers.utils.logging import disable_progress_bar

from . import __version__
from .build import build_extractor, build_network
from .configuration_ser import SERConfig
from .disk import first_line, in_words, path, whole_files
from .feature_extraction_ser import SERFeatureExtractor
from .hub import HubError, export_onnx, load_pretrained, push_model
from .labels import LabelError, label_scheme
from .memory import keep_freed_memory
from .modeling_ser import SERForAudioClassification
from .pretrained import halve_weights, is_halved, load_config, load_extractor, load_model
from .run_files import METRICS, REFUSED, SETTINGS, SPLIT
from .settings import SettingsError, TrainingSettings, load_settings

if TYPE_CHECKING:
    from accelerate import PartialState

    from .inference import EmotionRecognizer

DEFAULT_MODEL = Path(__file__).resolve().parent.parent / "checkpoints" / "ser-cnn-8"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ser_model", description="Speech emotion recognition.")
    parser.add_argument("--version", action="version", version=f"ser_model {__version__}")
    commands = parser.add_subparsers(required=True)
    from_hub = argparse.ArgumentParser(add_help=False)
    from_hub.add_argument("--revision", help="of a Hub id: a branch, a tag or, for what cannot change, a commit")
    running = argparse.ArgumentParser(add_help=False, parents=[from_hub])
    running.add_argument("--device", default="cpu", type=device, help="cpu, cuda, cuda:1, ...")
    running.add_argument("--trust-remote-code", action="store_true", help="run the code that comes with the model")
    with_model = argparse.ArgumentParser(add_help=False, parents=[running])
    with_model.add_argument("--model", default=str(DEFAULT_MODEL), help="a local folder or a Hub id")

    command = commands.add_parser(
        "predict", parents=[with_model], help="name the emotion of files or folders of files, as CSV"
    )
    command.add_argument("paths", nargs="+", type=path, metavar="FILE_OR_DIR")
    command.add_argument("--output", type=path, metavar="CSV", help="where the rows go; the terminal if left out")
    command.set_defaults(run=predict)

    command = commands.add_parser(
        "timeline", parents=[with_model], help="how the emotion changes over each recording: CSV, JSON, SRT"
    )
    command.add_argument("paths", nargs="+", type=path, metavar="FILE_OR_DIR")
    command.add_argument("--output-dir", type=path, required=True, metavar="DIR", help="where NAME.csv, .json, .srt go")
    command.set_defaults(run=timeline)

    command = commands.add_parser(
        "evaluate", parents=[running], help="how good a model is on the data that a config names"
    )
    command.add_argument("model", metavar="MODEL", help="a local folder or a Hub id")
    used = "its data, labels and split are used; --split.test 0.3 and the like, given last, change it"
    command.add_argument("--config", type=path, required=True, help=f"a YAML file of configs/: {used}")
    command.add_argument("--data-dir", type=path, required=True, help="the folder that holds the corpora")
    command.add_argument("--part", choices=["train", "validation", "test", "all"], default="test")
    command.add_argument("--condition", default="clean", help="that clips are heard under: noise_10db, telephone, ...")
    command.add_argument("--output", type=path, metavar="JSON", help="where all figures go")
    command.add_argument("--predictions", type=path, metavar="CSV", help="where one row a clip goes")
    command.set_defaults(run=evaluate_model)

    command = commands.add_parser("card", help="write a model's card from its figures and those of other runs")
    command.add_argument("run_dir", type=path, metavar="RUN", help="the output folder of train.py")
    command.add_argument("--beside", type=path, nargs="*", default=[], metavar="RUN", help="runs to report beside it")
    command.set_defaults(run=card)

    command = commands.add_parser("likeness", help="teach a trained model what is unlike its voices, as train.py does")
    command.add_argument("run_dir", type=path, metavar="RUN", help="the output folder of train.py")
    command.add_argument("--data-dir", type=path, required=True, help="the folder that holds the corpora")
    command.set_defaults(run=likeness)

    command = commands.add_parser("join", help="make one model of runs that differ in their seed: the mean of them")
    command.add_argument("run_dirs", type=path, nargs="+", metavar="RUN", help="an output folder of train.py --after")
    command.add_argument("--output-dir", type=path, required=True, metavar="OUT", help="where the model and card go")
    command.set_defaults(run=join)

    command = commands.add_parser("halve", help="store a model's weights in half precision; they load as before")
    command.add_argument("folder", type=path, metavar="OUT", help="the output folder of train.py, or of join")
    command.set_defaults(run=halve)

    command = commands.add_parser("download", help="fetch a corpus from its official place, or go on where it stopped")
    command.add_argument("corpus", choices=["ravdess", "tess", "cremad", "savee"])
    command.add_argument("--dest", type=path, required=True, metavar="DIR", help="the folder of all corpora")
    command.add_argument("--only", choices=["speech", "song"], help="of ravdess, which has both")
    command.add_argument("--keep", action="store_true", help="keep the archives once they are unpacked")
    command.add_argument("--server", metavar="URL", help="where copies of the official hosts answer; see download.py")
    command.set_defaults(run=download)

    command = commands.add_parser("explore", help="write a page, pictures and tables of the data that a config names")
    command.add_argument("--config", type=path, required=True, help="a YAML file of configs/")
    command.add_argument("--data-dir", type=path, required=True, help="the folder that holds the corpora")
    command.add_argument("--output", type=path, required=True, metavar="DIR", help="where index.html, PNGs and CSVs go")
    command.add_argument(
        "--num-proc", type=positive, help="processes that measure the files; left out: data.num_proc, or a core each"
    )
    command.set_defaults(run=explore_data)

    command = commands.add_parser("push", help="upload a model with its code and card to the Hub, in one commit")
    command.add_argument("folder", type=path, metavar="OUT", help="the output folder of train.py")
    command.add_argument("repo_id", metavar="REPO_ID", help="your-name/ser-cnn")
    command.add_argument("--private", action="store_true", help="if the repository is made now, only you see it")
    command.set_defaults(run=push)

    command = commands.add_parser("export", parents=[from_hub], help="one ONNX file, waveform in, logits out")
    command.add_argument("model", metavar="OUT", help="a local folder or a Hub id")
    command.add_argument("output", type=path, metavar="ONNX", help="where the file goes")
    command.set_defaults(run=export)

    command = commands.add_parser("draw", parents=[from_hub], help="a picture of a network, with shapes and parameters")
    command.add_argument("source", metavar="CONFIG_OR_MODEL", help="a YAML of configs/, a local folder or a Hub id")
    command.add_argument("--output", type=path, required=True, metavar="SVG", help="or .png, .pdf")
    # 3: down to the blocks of a network, which are drawn closed.
    command.add_argument("--depth", type=positive, default=3, help="how many modules within one another are opened")
    command.set_defaults(run=draw)

    args, args.overrides = parser.parse_known_args(arguments)
    if args.overrides and args.run is not evaluate_model:
        parser.error(f"unrecognized arguments: {' '.join(args.overrides)}")
    disable_progress_bar()  # Transformers draws one for weights that are there in a moment
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # file names go out as they came, in whatever encoding
    keep_freed_memory()
    try:
        status = args.run(args)
        sys.stdout.flush()
        return status
    except (HubError, SettingsError) as error:
        sys.exit(f"{parser.prog}: {error}")
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever reads our output has seen enough, as `| head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python's own last flush fails and says so
        return 1
    except OSError as error:
        if error.errno is None:  # not from the operating system
            raise
        sys.exit(f"{parser.prog}: {in_words(error)}")


def device(name: str) -> str:
    """The name of a device that is there."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, ImportError) as error:  # no such device; a PyTorch without that kind
        why = first_line(error).partition(". ")[0]  # torch goes on with a list of every backend
        raise argparse.ArgumentTypeError(f"{name!r} is not there ({why}); take cpu") from error
    if name == "meta":
        raise argparse.ArgumentTypeError("'meta' computes nothing; take cpu")
    return name


def positive(number: str) -> int:
    """A whole number from 1 on."""
    if not number.isdecimal() or int(number) < 1:
        raise argparse.ArgumentTypeError(f"{number!r} is no whole number from 1 on")
    return int(number)


def predict(args: argparse.Namespace) -> int:
    """Exit status 1 if any file was left without an answer; not for one of several processes, whose launcher takes
    every status but 0 for a crash.
    """
    from .bulk import BulkError, predict_files
    from .inference import write_predictions

    files = [str(path) for path in files_in(args.paths)]
    with processes(args) as own:
        recognizer = load_recognizer(args)
        if args.output:
            try:
                answered, failed = predict_files(recognizer, files, args.output, own)
            except BulkError as error:
                sys.exit(f"predict: {error}")
            except OSError as error:
                if error.errno is None:  # not from the operating system
                    raise
                sys.exit(f"predict: {in_words(error)}; the same command goes on from here")
            except KeyboardInterrupt:
                print("stopped; the same command goes on from here", file=sys.stderr)
                return 130
        elif own.num_processes > 1:
            sys.exit("predict: several processes cannot share the terminal; give --output")
        else:
            answered, failed = write_predictions(recognizer, files, sys.stdout)
        if own.is_main_process:
            print(f"{answered} answered, {failed} not", file=sys.stderr)
        return 1 if failed and own.num_processes == 1 else 0


def files_in(paths: list[Path]) -> list[Path]:
    from .inference import audio_files

    files = list(audio_files(paths))
    if not files:
        sys.exit(f"no audio files in {', '.join(map(str, paths))}")
    return files


def timeline(args: argparse.Namespace) -> int:
    """Three files a recording; exit status 1 if one got no answer, which is told."""
    from .audio import AudioError
    from .timeline import segments, to_csv, to_json, to_srt

    files = files_in(args.paths)
    if doubled := sorted(name for name, count in Counter(file.stem for file in files).items() if count > 1):
        sys.exit(f"timeline: {len(doubled)} names stand for several recordings, {doubled[0]} for one; take them apart")
    written = (args.output_dir / f"{file.stem}.{ending}" for file in files for ending in ("csv", "json", "srt"))
    if there := [path for path in written if path.exists()]:
        sys.exit(f"timeline: {there[0]} is there already; move it away, or give another --output-dir")
    recognizer = load_recognizer(args)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    failed = 0
    for file in files:
        [outcome] = recognizer.recognize_files([file])
        if isinstance(outcome, AudioError) or outcome.label is None:
            failed += 1
            print(f"{file}: {outcome if isinstance(outcome, AudioError) else outcome.message}", file=sys.stderr)
            continue
        found = segments(outcome)
        for ending, text in (("csv", to_csv(found)), ("json", to_json(outcome)), ("srt", to_srt(found))):
            (args.output_dir / f"{file.stem}.{ending}").write_text(text, encoding="utf-8", newline="")
        print(f"{file}: {len(found)} segments")
    return 1 if failed else 0


def evaluate_model(args: argparse.Namespace) -> int:
    from .data import DATA_ERRORS, left_out_words
    from .evaluation import UNSEEN, EvaluationError, evaluate, split_file
    from .reports import interval_words

    for file in filter(None, (args.output, args.predictions)):
        if file.is_dir():
            sys.exit(f"evaluate: {file} is a folder; name a file to write")
        if not file.parent.is_dir():
            sys.exit(f"evaluate: there is no folder {file.parent} to write {file.name} to; make it first")
    settings = load_settings(args.config, args.overrides)
    with processes(args) as own:
        recognizer = load_recognizer(args)
        options = {"part": args.part, "condition": args.condition, "progress": own.is_main_process}
        options["split_manifest"] = split_file(args.model, args.revision)
        try:
            figures, predictions = evaluate(recognizer, settings, args.data_dir, **options)
        except (EvaluationError, *DATA_ERRORS) as error:
            sys.exit(f"evaluate: {error}")
        if not own.is_main_process:
            return 0
    print(f"{UNSEEN[figures['speaker_disjoint']]}: {figures['speaker_disjoint_because']}")
    print(", ".join(f"{key} {figures[key]:.3f}" for key in ("uar", "accuracy", "f1_weighted", "ece")))
    print(interval_words(figures["interval"]))
    more = "; --data.strict true lists them" if figures["left_out"] else ""
    print(f"{figures['count']} clips heard, {left_out_words(figures['left_out'])}{more}")
    if args.output:
        args.output.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    if args.predictions:
        predictions.write(args.predictions)
    return 0


def card(args: argparse.Namespace) -> int:
    from .reports import write_card

    results = [results_of(run) for run in (args.run_dir, *args.beside)]
    settings = load_settings(args.run_dir / SETTINGS)
    write_card(args.run_dir, settings, label_scheme(settings.labels), results)
    return 0


def results_of(run_dir: Path) -> dict:
    """What train.py found out, from its output folder."""
    if not (run_dir / METRICS).is_file():
        sys.exit(f"no metrics.json in {run_dir}; give the output folder of train.py")
    try:
        results = json.loads((run_dir / METRICS).read_text(encoding="utf-8"))
    except ValueError as error:
        sys.exit(f"{run_dir}/metrics.json is damaged ({error}); run train.py again")
    if not (isinstance(results, dict) and "test" in results):
        sys.exit(f"{run_dir}/metrics.json holds no figures of a test part; give the output folder of train.py")
    return results


def likeness(args: argparse.Namespace) -> int:
    from .crossvalidation import refused_share
    from .data import DATA_ERRORS, load_data
    from .likeness import fit_likeness
    from .reports import write_json
    from .splits import read_manifest

    results = results_of(args.run_dir)
    settings = load_settings(args.run_dir / SETTINGS)
    model, extractor = load_network(str(args.run_dir))
    try:
        before = read_manifest(args.run_dir / SPLIT)
        options = {"frame_ms": extractor.frame_ms, "progress": True}
        data = load_data(settings, args.data_dir, extractor.sampling_rate, **options)
    except DATA_ERRORS as error:
        sys.exit(f"likeness: {error}")
    now = data.manifest()
    if any(before[part] != now[part] for part in ("train", "validation")):
        sys.exit(
            f"likeness: {args.data_dir} does not give the split that {args.run_dir} was trained on, so nobody can tell "
            "which voices it heard; use the same corpora, or train it again"
        )
    sounds, refused = settings.training.outlier_sounds or TrainingSettings().outlier_sounds, None
    if not data.split.validation:
        if (refused := refused_share(results.get("cross_validation", {}))) is None:
            sys.exit(
                f"likeness: {args.run_dir} was trained on everything, after folds that learnt no score, so nothing "
                "tells how many new voices it would refuse; run train.py --cv with training.outlier_sounds first"
            )
    results[REFUSED] = fit_likeness(model, extractor, data, sounds, settings.seed, refused)
    halved = is_halved(args.run_dir)
    with whole_files(args.run_dir) as folder:
        model.save_pretrained(folder)
    if halved:  # it stays as it was stored
        halve_weights(args.run_dir)
    write_json(results, args.run_dir / METRICS)
    print(f"likeness_threshold {model.config.likeness_threshold:.3f}")
    say_card_is_older(args.run_dir)
    return 0


def join(args: argparse.Namespace) -> int:
    from .checkpoints import CheckpointError
    from .joining import JoinError, join_runs
    from .predictions import PredictionsError
    from .pretrained import PretrainedError
    from .splits import SplitError

    try:
        results = join_runs(args.run_dirs, args.output_dir)
    except (CheckpointError, JoinError, PredictionsError, PretrainedError, SplitError) as error:
        sys.exit(f"join: {error}")
    test, protocol = results["test"], results["cross_validation"]["protocol"]
    print(
        f"{protocol}: {len(results['members'])} networks as one, test UAR {test['uar']:.3f}, accuracy "
        f"{test['accuracy']:.3f}, ECE {test['ece']:.3f}; saved to {args.output_dir}"
    )
    return 0


def halve(args: argparse.Namespace) -> int:
    try:
        before, after = halve_weights(args.folder)
    except OSError as error:
        sys.exit(f"halve: {error}")
    print(f"{args.folder}: weights of {after / 1e6:.1f} MB in place of {before / 1e6:.1f} MB")
    say_card_is_older(args.folder)
    return 0


def say_card_is_older(folder: Path) -> None:
    """Somebody may have added to the card, so it is not written anew unasked."""
    if (folder / METRICS).is_file():
        print(f"its card does not say so yet: python -m ser_model card {shlex.quote(str(folder))}")


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
    from joblib import cpu_count

    from .corpora import CorpusError
    from .explore import explore

    try:
        settings = load_settings(args.config)
        num_proc = args.num_proc or settings.data.num_proc or cpu_count()
        page = explore(settings, args.data_dir, args.output, progress=True, num_proc=num_proc)
    except (CorpusError, LabelError) as error:
        sys.exit(f"explore: {error}")
    print(page)
    return 0


def push(args: argparse.Namespace) -> int:
    print(push_model(args.folder, args.repo_id, args.private))
    return 0


def export(args: argparse.Namespace) -> int:
    difference = export_onnx(*load_network(args.model, args.revision), args.output)
    size_mb = args.output.stat().st_size / 1e6
    print(f"{args.output}: {size_mb:.1f} MB, outputs within {difference:.0e} of PyTorch's")
    return 0


def draw(args: argparse.Namespace) -> int:
    from .diagram import draw_network
    from .finetune import load_base

    try:
        if Path(args.source).suffix in (".yaml", ".yml"):
            settings = load_settings(args.source)
            names = label_scheme(settings.labels).names
            if base := load_base(settings):
                model, extractor = base.network(settings, names), base.extractor
            else:
                extractor = build_extractor(settings)
                model = build_network(settings, extractor, names, pretrained=False)
        else:
            model, extractor = load_network(args.source, args.revision)
        print(draw_network(model, extractor, args.output, args.depth))
    except (ValueError, ImportError) as error:  # settings that do not go together, no timm, an unknown file ending
        sys.exit(f"draw: {error}")
    return 0


@contextmanager
def processes(args: argparse.Namespace) -> Iterator["PartialState"]:
    """This process among those that `accelerate launch` or torchrun started, alone without them.

    With `--device cuda` each takes a GPU of its own.
    """
    from accelerate import PartialState

    from .distributed import LONGEST_WAIT

    own = PartialState(cpu=args.device == "cpu", timeout=LONGEST_WAIT)
    if own.num_processes > 1 and args.device == "cuda":
        args.device = str(own.device)
    try:
        yield own
    finally:
        own.destroy_process_group()


def load_recognizer(args: argparse.Namespace) -> "EmotionRecognizer":
    from .inference import EmotionRecognizer

    if args.model == str(DEFAULT_MODEL) and not DEFAULT_MODEL.is_dir():  # installed without the repository around it
        raise HubError("no checkpoint lies beside this package; give --model, a folder of train.py's or a Hub id")
    options = {"device": args.device, "trust_remote_code": args.trust_remote_code, "revision": args.revision}
    return load_pretrained(EmotionRecognizer.from_pretrained, args.model, **options)


def load_network(source: str, revision: str | None = None) -> tuple[SERForAudioClassification, SERFeatureExtractor]:
    config = load_pretrained(load_config, source, revision=revision)
    if not isinstance(config, SERConfig):
        raise HubError(
            f"{source} is a model of the kind {config.model_type!r}; this works with those of train.py alone"
        )
    model = load_pretrained(load_model, source, kind=SERForAudioClassification, revision=revision)
    return model, load_pretrained(load_extractor, source, model=model, revision=revision)


if __name__ == "__main__":
    sys.exit(main())
