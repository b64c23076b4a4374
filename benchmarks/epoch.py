"""Seconds of one training epoch, and clips a second, on one process and on more, and in the usual way.

    python -m benchmarks.epoch configs/ravdess14_resnet18.yaml configs/ravdess14_deep_cnn.yaml --data-dir data --steps 5

The usual way is a Dataset that loads and resamples each clip and makes its MFCCs with librosa, for each epoch anew and
in as many workers as there are cores, then the same network and optimizer; it does not augment, as `train.py` does.

Times some steps of the real `train.py`, after two that warm up, and multiplies: an epoch's time leaves out validation
and saving. With several processes each takes `training.batch_size` clips a step. Processes share the machine, with one
another and with whatever else runs. On a GPU its utilisation is the mean of what nvidia-smi says each second.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from ser_model.mfcc import frame_mask

ROOT = Path(__file__).resolve().parent.parent
WARM_UP = 2
ENOUGH = 42  # exit status of a process that has timed its steps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("configs", nargs="+", type=Path)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--steps", type=int, default=20, help="that are timed")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--output-dir", help=argparse.SUPPRESS)  # of a process that is timed
    parser.add_argument("--usual", action="store_true", help=argparse.SUPPRESS)
    args, overrides = parser.parse_known_args()
    if args.usual:
        return usual(args, overrides)
    if args.output_dir:
        return timed(args, overrides)
    print(f"{os.cpu_count()} cores, {torch.get_num_threads()} threads a process, load {os.getloadavg()[0]:.1f}")
    print("| config | processes | s a step | s an epoch | clips/s | GPU |\n| --- | --- | --- | --- | --- | --- |")
    for config in args.configs:
        for processes in ["usual way", *args.processes]:
            step_s, epoch_s, clips_per_s, gpu = measured(config, args.data_dir, args.steps, processes, overrides)
            print(
                f"| {config.stem} | {processes} | {step_s:.2f} | {epoch_s:.1f} | {clips_per_s:.1f} | {gpu} |",
                flush=True,
            )


def measured(
    config: Path, data_dir: str, steps: int, processes: int | str, overrides: list[str]
) -> tuple[float, float, float, str]:
    launcher = [sys.executable]
    if processes not in ("usual way", 1):
        launcher = [str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc_per_node", str(processes)]
    command = [*launcher, "-m", "benchmarks.epoch", str(config), *["--usual"] * (processes == "usual way")]
    command += ["--data-dir", data_dir, "--steps", str(steps), *overrides]
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as output:
        command += ["--output-dir", folder]
        run = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, text=True)
        busy = []
        while run.poll() is None:
            if torch.cuda.is_available():
                busy.append(gpu_percent())
            time.sleep(1)
        output.seek(0)
        said = output.read()
    lines = [line for line in said.splitlines() if line.startswith("timed ")]
    if not lines:
        sys.exit(said)
    step_s, epoch_s, clips_per_s = map(float, lines[0].split()[1:])
    return step_s, epoch_s, clips_per_s, f"{sum(busy) / len(busy):.0f} %" if busy else "none"


def gpu_percent() -> float:
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    return float(subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0])


class Clips(torch.utils.data.Dataset):
    """MFCCs (L, n_mfcc) and class of each clip, made when asked for."""

    def __init__(self, paths: list[Path], labels: list[int], extractor):
        self.paths, self.labels, self.extractor = paths, labels, extractor

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        import librosa

        own = self.extractor
        sound, _ = librosa.load(self.paths[index], sr=own.sampling_rate)
        mfcc = librosa.feature.mfcc(
            y=sound,
            sr=own.sampling_rate,
            n_mfcc=own.n_mfcc,
            n_mels=own.n_mels,
            n_fft=own.n_fft,
            win_length=own.frame_samples,
            hop_length=own.hop_samples,
        )
        return torch.from_numpy(mfcc.T), self.labels[index]


def together(clips: list[tuple[torch.Tensor, int]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features (B, L, n_mfcc) padded to the longest, their mask (B, L), labels (B,)."""
    features = torch.nn.utils.rnn.pad_sequence([own for own, _ in clips], batch_first=True)
    lengths = torch.tensor([len(own) for own, _ in clips])
    return features, frame_mask(lengths, features.shape[1]), torch.tensor([label for _, label in clips])


def usual(args: argparse.Namespace, overrides: list[str]) -> None:
    from ser_model.build import build_extractor, build_network
    from ser_model.data import load_data
    from ser_model.settings import load_settings

    settings = load_settings(args.configs[0], overrides)
    extractor = build_extractor(settings)
    data = load_data(settings, Path(args.data_dir), extractor.sampling_rate)
    paths = [data.utterances[index].path for index in data.split.train]
    clips = Clips(paths, data.rows("train")["label"], extractor)
    size = settings.training.batch_size
    workers = {"num_workers": os.cpu_count() or 1, "persistent_workers": True}
    loader = torch.utils.data.DataLoader(clips, size, shuffle=True, collate_fn=together, **workers)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = build_network(settings, extractor, data.scheme.names).to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), settings.training.learning_rate)
    done, started_s = 0, 0.0
    while True:
        for features, mask, labels in loader:
            loss = torch.nn.functional.cross_entropy(
                network(features.to(device), mask.to(device)).logits, labels.to(device)
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            float(loss)  # waits for the device
            done += 1
            if done == WARM_UP:
                started_s = time.perf_counter()
            if done == WARM_UP + args.steps:
                step_s = (time.perf_counter() - started_s) / args.steps
                epoch_s = step_s * len(loader)
                print(f"timed {step_s} {epoch_s} {len(clips) / epoch_s}", flush=True)
                os._exit(ENOUGH)


def timed(args: argparse.Namespace, overrides: list[str]) -> None:
    """Runs `train.py`, and ends it by force once enough steps were seen."""
    import train

    times_s = []

    def seen(bar, progress, batches) -> None:
        times_s.append(time.perf_counter())
        if len(times_s) == WARM_UP + args.steps:
            step_s = (times_s[-1] - times_s[WARM_UP - 1]) / args.steps
            if os.environ.get("RANK", "0") == "0":
                epoch_s = step_s * batches.num_batches
                print(f"timed {step_s} {epoch_s} {batches.num_clips / epoch_s}", flush=True)
            os._exit(ENOUGH)

    train.show_step = seen
    places = ["--data-dir", args.data_dir, "--output-dir", args.output_dir]
    train.main(["--config", str(args.configs[0]), *places, *overrides])


if __name__ == "__main__":
    main()
