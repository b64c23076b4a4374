"""What it answers to recordings that nobody made for this project: a row a folder, of the clips of a second and more.

    apt-get download hedgewars-data && dpkg-deb --extract hedgewars-data_*.deb wild   # for one
    python -m benchmarks.in_the_wild wild/usr/share/games/hedgewars/Data/{Music,Sounds,Sounds/voices/*}

A clip counts for the deepest of the given folders that holds it. Nobody has labelled these clips: the table tells what
gets an answer, how sure, and which, not whether that is right.
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from benchmarks.out_of_domain import SURE, answer_shares
from ser_model.audio import AudioError
from ser_model.inference import TOO_QUIET, TOO_SHORT, EmotionRecognizer, Prediction, audio_files

CHECKPOINT = Path(__file__).resolve().parent.parent / "checkpoints" / "ser-cnn-8"
SHORTEST_S = 1.0
COLUMNS = (
    "recordings",
    "clips",
    "too short or quiet",
    "no voice heard",
    "unlike training",
    "answered",
    f"with {SURE} or more",
    "as",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="folders of audio files")
    parser.add_argument("--model", default=CHECKPOINT, help="a folder or Hub id")
    args = parser.parse_args()
    torch.set_num_threads(1)
    recognizer = EmotionRecognizer.from_pretrained(args.model)
    print(f"| {' | '.join(COLUMNS)} |\n{'| --- ' * len(COLUMNS)}|")
    for folder in args.folders:
        files = [file for file in audio_files([folder]) if deepest(file, args.folders) == folder]
        heard = [recognizer.recognize_files([file])[0] for file in files]
        unreadable = [file for file, answer in zip(files, heard, strict=True) if isinstance(answer, AudioError)]
        if unreadable:
            print(f"{folder}: {len(unreadable)} files cannot be read, {unreadable[0]} for one")
        answers = [answer for answer in heard if isinstance(answer, Prediction) and answer.duration_s >= SHORTEST_S]
        if answers:
            print(f"| {folder.parent.name}/{folder.name} | {' | '.join(cells(answers))} |", flush=True)


def deepest(file: Path, folders: list[Path]) -> Path:
    return max((folder for folder in folders if folder in file.parents), key=lambda folder: len(folder.parts))


def cells(answers: list[Prediction]) -> list[str]:
    shares = [np.mean([answer.status in (TOO_SHORT, TOO_QUIET) for answer in answers]), *answer_shares(answers)]
    labels = Counter(answer.label for answer in answers if answer.label)
    commonest = ", ".join(f"{label} {count / labels.total():.2f}" for label, count in labels.most_common(3))
    return [str(len(answers)), *(f"{share:.2f}" for share in shares), commonest]


if __name__ == "__main__":
    main()
