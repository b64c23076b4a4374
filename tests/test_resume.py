"""Runs that are stopped in every way there is, and what comes of going on with them."""

import os
import random
import signal
import time
from functools import partial

import pytest
from training_runs import TINY, Run, outcome

EVERY_STEP = "--training.checkpoint_minutes=1e-6"
KINDS = {  # batch norm and accumulated gradients on one process; a recurrent network with dropout on two
    1: ["--training.accumulation_steps=2", "--training.batch_size=8"],
    2: ["--model.backbone=gru", "--model.backbone_options={hidden_size: 16, dropout: 0.2}", "--training.batch_size=8"],
}


@pytest.fixture(scope="module")
def places(synthetic_corpora, tmp_path_factory):
    """Arguments for a folder of its own."""

    def make(name: str = "run"):
        folder = tmp_path_factory.mktemp(name)
        return (
            [*TINY, f"--data-dir={synthetic_corpora}", f"--output-dir={folder / 'out'}"],
            folder / "out",
            folder / "log",
        )

    return make


@pytest.fixture(scope="module", params=KINDS)
def whole_run(request, places):
    """A run that nothing stops: its arguments and outcome, and on how many processes."""
    arguments, output_dir, log = places("whole")
    run = Run([*arguments, *KINDS[request.param]], log, request.param)
    assert set(run.wait()) == {0}, run.said()
    return KINDS[request.param], outcome(output_dir), request.param


def die_in(function: str, call: int, rank: int) -> None:
    """Have the first process killed at the start of that call of a function of `os`."""
    if rank:
        return
    honest, calls = getattr(os, function), iter(range(call))

    def deadly(*arguments, **options):
        if next(calls, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return honest(*arguments, **options)

    setattr(os, function, deadly)


def test_killed_again_and_again_a_run_ends_with_the_same_bits(whole_run, places):
    """At random moments, and while a checkpoint, or the best model, is half written or not yet in its place."""
    kind, expected, processes = whole_run
    arguments, output_dir, log = places("killed")
    arguments += [*kind, EVERY_STEP, "--resume"]
    rng = random.Random(processes)
    deaths = [partial(die_in, "fsync", 3), partial(die_in, "replace", 2), partial(die_in, "replace", 11), None, None]
    for death in deaths:
        run = Run(arguments, log, processes, death)
        if death is None:
            run.wait_until(lambda run=run: "resumed from" in run.said())
            time.sleep(rng.uniform(0, 0.4))
            run.signal(signal.SIGKILL)
        statuses = run.wait()
        assert statuses[0] == -signal.SIGKILL, run.said()
    run = Run(arguments, log, processes)
    assert set(run.wait()) == {0}, run.said()
    assert "resumed from" in run.said()
    assert outcome(output_dir) == expected
