"""How a run ends before its end: told to stop, or by a fault outside the program, in a sentence either way."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

import torch
import torch.distributed as dist
from safetensors import SafetensorError

from .audio import AudioError
from .disk import first_line, in_words

LAUNCHERS = ("ACCELERATE_DYNAMO_BACKEND", "TORCHELASTIC_RUN_ID")  # set by `accelerate launch` and torchrun
LOST_PEER = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Connection refused", "NCCL")


class Stopped(Exception):
    """A run that ended early, and why; `status` is the exit status."""

    def __init__(self, reason: str, status: int = 1):
        super().__init__(reason)
        self.status = status


class StopSignals:
    """Within the block, SIGTERM and Ctrl-C are noted in `received`, for the loop to act on between two steps.

    Said again, they change nothing: launchers pass on what the terminal has sent already. A launcher that is gone
    counts as SIGTERM, for `accelerate launch` ends on that signal without handing it on.
    """

    def __init__(self) -> None:
        self._number = 0
        self._launcher = os.getppid() if any(name in os.environ for name in LAUNCHERS) else None

    @property
    def received(self) -> int:
        """The signal's number; 0 if there was none."""
        if self._launcher not in (None, os.getppid()):
            self._number = self._number or int(signal.SIGTERM)
        return self._number

    def __enter__(self) -> "StopSignals":
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame) -> None:
        self._number = self._number or number


@contextmanager
def faults_in_words() -> Iterator[None]:
    """Turn what no program can prevent into `Stopped`: a full disk, lost files, too little memory, a dead process."""
    try:
        yield
    except AudioError as error:  # from another process it brings a traceback, whose last line is the message
        reason = str(error).strip().splitlines()[-1].removeprefix(f"{AudioError.__module__}.{AudioError.__name__}: ")
        raise Stopped(f"a clip can no longer be read ({reason}); see that the data folder is there") from error
    except SafetensorError as error:
        raise Stopped(f"weights cannot be written ({error}); free some space") from error
    except OSError as error:
        if error.errno is None:  # not from the operating system
            raise
        raise Stopped(in_words(error)) from error
    except BrokenProcessPool as error:
        raise Stopped(f"a process that decodes clips has died ({error}); see that memory suffices") from error
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise Stopped(
                f"the device has too little memory ({first_line(error)}); free some, or start anew with --overwrite "
                "and a lower training.batch_size, and training.accumulation_steps higher by the same factor"
            ) from error
        if type(error) is not RuntimeError and not isinstance(error, dist.DistError):
            raise
        message = first_line(error)
        if "DataLoader worker" in message:
            raise Stopped(f"a process that decodes clips has died ({message}); see that memory suffices") from error
        if any(sign in str(error) for sign in LOST_PEER):
            raise Stopped("another process of this run has died or ended; its own message says why") from error
        raise
