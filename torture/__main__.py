"""python -m torture --data-dir DIR [--only PART...] [--short] [--write docs/reliability.md]"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.alternating import machine

from . import agreement, faults, inputs, load, security
from .page import served
from .report import Part

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "checkpoints" / "ser-cnn-8"
HEAD = """# Reliability

Made by `make torture` on {machine}; do not edit. What is done, and why, is told in torture/.

What needs no measuring is a test of its own, run by `make test`:

| fault | test |
| --- | --- |
| a model folder that is cut short, mixed up, of other labels or widths, or pickled | tests/test_pretrained.py |
| kill -9 of a training, again and again; SIGTERM and Ctrl-C; one of several processes dies | tests/test_resume.py |
| the disk fills up, or the data folder goes away, in the middle of a training | tests/test_resume.py |
| kill -9 of `predict` over a folder, or a full disk under it | tests/test_bulk.py |
| uploads too large (413) or too many (429), or a full disk under them (507) | tests/test_page_api.py |
| zips that lie, climb out of their folder or swell | tests/test_archives.py |
| a team's library whose disk is full, or that several processes change at once | tests/test_library.py |
"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m torture", description="Try to break it; print what came of it.")
    parser.add_argument("--data-dir", type=Path, required=True, help="the folder that holds RAVDESS and TESS")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="some parts alone")
    parser.add_argument("--short", action="store_true", help="a little of everything")
    parser.add_argument("--write", type=Path, metavar="FILE", help="where the tables go as well")
    args = parser.parse_args(arguments)
    parts = []
    for name in args.only:
        for part in PARTS[name](args):
            print(part.markdown(), flush=True)
            parts.append(part)
    if args.write:
        args.write.write_text(
            "\n".join([HEAD.format(machine=machine()), *(part.markdown() for part in parts)]), encoding="utf-8"
        )
    wrong = sum(len(part.problems) for part in parts)
    print(f"{len(parts)} tables, {wrong} things went wrong")
    return 1 if wrong else 0


def bad_inputs(args: argparse.Namespace) -> Iterator[Part]:
    yield from inputs.run(args.short)


def visitors(args: argparse.Namespace) -> Iterator[Part]:
    clip = agreement.real_clips(args.data_dir, 1)[0]
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as (url, server):
        yield from load.run(url, server, clip, args.short)


def same_answers(args: argparse.Namespace) -> Iterator[Part]:
    with tempfile.TemporaryDirectory() as folder, served(Path(folder), {"SER_MODELS": str(MODEL)}) as (url, _):
        yield from agreement.run(MODEL, args.data_dir, url, 8 if args.short else 100)


def machine_faults(args: argparse.Namespace) -> Iterator[Part]:
    yield from faults.run(agreement.real_clips(args.data_dir, 1)[0], args.data_dir)


def strangers(_: argparse.Namespace) -> Iterator[Part]:
    yield from security.run()


PARTS = {
    "inputs": bad_inputs,
    "security": strangers,
    "faults": machine_faults,
    "agreement": same_answers,
    "load": visitors,
}

if __name__ == "__main__":
    sys.exit(main())
