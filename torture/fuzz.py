"""Coverage-guided fuzzing of the decoder: bytes that reach new lines of `audio.py` are bred further (libFuzzer).

`run` starts this file as a program of its own, for libFuzzer ends the process that it finds a fault in.
"""

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .recordings import FORMATS
from .report import Part

ROOT = Path(__file__).resolve().parent.parent
FINDINGS = ROOT / "build" / "fuzz"
MAX_S, MAX_MIB, MAX_BYTES = 10, 2048, 100_000


def run(*, seconds: int = 0, runs: int = -1) -> Part:
    """Starts from one recording of every format; a fault is whatever is no AudioError, too slow or too large.

    Stops after `seconds` or `runs`, whichever is given. The input that shows a fault is kept in `FINDINGS`.
    """
    FINDINGS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for name, make in FORMATS.items():
            (corpus / name).write_bytes(make())
        limits = [f"-timeout={MAX_S}", f"-rss_limit_mb={MAX_MIB}", f"-max_len={MAX_BYTES}"]
        options = [f"-max_total_time={seconds}", f"-runs={runs}", f"-artifact_prefix={FINDINGS}/", "-seed=1"]
        # libFuzzer asks for the peak of memory by getrusage, in which Linux counts the process that started this one:
        # a shell in between is small. `exit` keeps it from making room for the program.
        shell = ["sh", "-c", '"$@"; exit $?', "sh"]
        command = [*shell, sys.executable, "-m", "torture.fuzz", str(corpus), *limits, *options]
        started_s = time.monotonic()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace")
        grown = len(list(corpus.iterdir())) - len(FORMATS)
    tried = re.search(r"Done (\d+) runs", done.stderr)
    said = [line for line in done.stderr.splitlines() if "ERROR: libFuzzer" in line or "written to" in line]
    problems = [] if done.returncode == 0 else ["; ".join(said) or f"ended with status {done.returncode}"]
    rows = [("seconds", f"{time.monotonic() - started_s:.0f}")]
    rows.append(("inputs tried", tried[1] if tried else "stopped at a fault"))
    rows.append(("inputs that reached something new", str(grown)))
    return Part("Coverage-guided fuzzing of the decoder", rows, problems)


def main() -> None:
    import atheris

    with atheris.instrument_imports(include=["ser_model.audio"]):
        from ser_model.audio import AudioError, load_audio

    def decode(data: bytes) -> None:
        try:
            load_audio(data)
        except AudioError:
            pass

    atheris.Setup(sys.argv, decode)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
