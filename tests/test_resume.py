"""Runs that are stopped in every way there is, and what comes of going on with them."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save
from training_runs import ROOT, Run, outcome, tiny_run

from benchmarks import kill_resume
from ser_model import SERFeatureExtractor
from ser_model.checkpoints import Checkpoint, CheckpointError, alone, identity_of, remove_run
from ser_model.faults import Stopped, faults_in_words
from ser_model.settings import load_settings
from train import main

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
            tiny_run(synthetic_corpora, folder / "out"),
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


def test_runs_that_differ_in_their_times_alone_are_alike(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    outcomes = []
    for time_s in (1.0, 2.0):
        epoch = {"train_loss": 0.5, "epoch_s": time_s, "clips_per_s": 10 / time_s}
        metrics = {"validation": {}, "test": {}, "temperature": 1.0, "best_epoch": 0, "history": [epoch]}
        (tmp_path / "metrics.json").write_text(json.dumps(metrics))
        outcomes.append(kill_resume.outcome(tmp_path))
    assert outcomes[0] == outcomes[1]


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


def test_a_sharded_run_that_was_killed_ends_with_the_same_bits_too(places):
    arguments, expected_dir, log = places("whole")
    run = Run([*arguments, "--training.epochs=1"], log, 2, sharded=True)
    assert set(run.wait()) == {0}, run.said()
    arguments, output_dir, log = places("killed")
    arguments += ["--training.epochs=1", EVERY_STEP, "--resume"]
    run = Run(arguments, log, 2, partial(die_in, "replace", 2), sharded=True)
    assert run.wait()[0] == -signal.SIGKILL, run.said()
    run = Run(arguments, log, 2, sharded=True)
    assert set(run.wait()) == {0}, run.said()
    assert "resumed from" in run.said() and "sharded over 2 processes" in run.said()
    assert outcome(output_dir) == outcome(expected_dir)


# told to stop


def resumed_to_the_end(arguments: list[str], log: Path, processes: int = 1) -> None:
    run = Run([*arguments, "--resume"], log, processes)
    assert set(run.wait()) == {0}, run.said()
    assert "resumed from" in run.said()


def test_a_signal_to_one_process_stops_all_after_a_step_and_nothing_is_lost(whole_run, places):
    kind, expected, processes = whole_run
    arguments, output_dir, log = places("told")
    arguments += kind
    run = Run(arguments, log, processes, note_steps)
    run.wait_until(lambda: run.said().count("step") >= 2 * processes)
    number = signal.SIGTERM if processes > 1 else signal.SIGINT
    os.kill(run.ranks[-1].pid, number)
    assert set(run.wait()) == {128 + number}, run.said()
    assert run.said().count(f"train.py: stopped by {number.name} in epoch ") == 1
    assert f"--output-dir={output_dir}" in run.said() and run.said().rstrip().endswith("--resume")
    assert "Traceback" not in run.said()
    resumed_to_the_end(arguments, log, processes)
    assert outcome(output_dir) == expected


def note_steps(_rank: int) -> None:
    import train

    def noted(*arguments, honest=train.batch_loss):
        print("step", flush=True)
        return honest(*arguments)

    train.batch_loss = noted


def note_loading(lose_launcher: bool, _rank: int) -> None:
    """Say when the data are about to be loaded; and take a while, or have the launcher gone by then."""
    import train

    def noted(*arguments, honest=train.load_data, **options):
        print("loading", flush=True)
        if lose_launcher:
            os.getppid = lambda: 1
        else:
            time.sleep(60)
        return honest(*arguments, **options)

    os.environ["TORCHELASTIC_RUN_ID"] = "test"
    train.load_data = noted


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_first_step_ends_it_in_the_same_sentence(number, places):
    arguments, _, log = places("early")
    run = Run(arguments, log, before=partial(note_loading, False))
    run.wait_until(lambda: "loading" in run.said())
    run.signal(number)
    assert run.wait() == [128 + number], run.said()
    assert f"train.py: stopped by {number.name}; there is no checkpoint yet" in run.said()
    assert "Traceback" not in run.said()


def test_a_launcher_that_is_gone_before_the_first_step_leaves_no_run_behind(places):
    arguments, _, log = places("orphaned")
    run = Run(arguments, log, before=partial(note_loading, True))
    assert run.wait() == [128 + signal.SIGTERM], run.said()
    assert "train.py: stopped by SIGTERM in epoch 1, 0 batches into it" in run.said()


@pytest.mark.parametrize("launcher", ["accelerate launch", "torchrun --standalone --nproc_per_node 2"])
def test_sigterm_to_the_launcher_stops_what_it_launched(launcher, places):
    """`accelerate launch` ends without a word to its child; torchrun hands the signal on."""
    arguments, output_dir, log = places("launched")
    program, *options = launcher.split()
    command = [str(Path(sys.executable).with_name(program)), *options, str(ROOT / "train.py"), *arguments]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    with open(log, "w") as file:
        process = subprocess.Popen(
            [*command, "--training.epochs=500"], stdout=file, stderr=file, env=environment, start_new_session=True
        )
    try:
        wait_for(lambda: "epoch 1/500" in log.read_text(), log)
        process.terminate()
        wait_for(lambda: "train.py: stopped by SIGTERM in epoch" in log.read_text(), log)
        process.wait(timeout=60)
        assert (output_dir / "checkpoint.safetensors").exists()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def wait_for(happened, log: Path) -> None:
    deadline_s = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline_s, log.read_text()
        time.sleep(0.05)


# faults


def test_a_process_that_dies_ends_the_others_with_the_reason(places):
    arguments, _, log = places("died")
    arguments += [*KINDS[2], EVERY_STEP]
    run = Run(arguments, log, 2, note_steps)
    run.wait_until(lambda: run.said().count("step") >= 6)
    os.kill(run.ranks[1].pid, signal.SIGKILL)
    assert run.wait() == [1, -signal.SIGKILL], run.said()
    assert "train.py: another process of this run has died" in run.said() and "Traceback" not in run.said()
    resumed_to_the_end(arguments, log, 2)


def test_a_full_disk_ends_in_a_sentence_and_leaves_the_last_checkpoint_whole(whole_run, places):
    kind, expected, processes = whole_run
    arguments, output_dir, log = places("full")
    arguments += [*kind, EVERY_STEP]
    run = Run(arguments, log, processes, note_steps)
    run.wait_until(lambda: run.said().count("step") >= 4 * processes)
    for rank in run.ranks:
        resource.prlimit(rank.pid, resource.RLIMIT_FSIZE, (20_000, 20_000))  # what it says, and no weights
    assert set(run.wait()) == {1}, run.said()
    assert "File too large; free some space on the disk; to go on" in run.said() and "Traceback" not in run.said()
    assert not list(output_dir.glob("*unfinished*"))
    resumed_to_the_end(arguments, log, processes)
    assert outcome(output_dir) == expected


def test_too_little_memory_ends_in_a_sentence_that_says_what_to_lower(synthetic_corpora, tmp_path, monkeypatch, capsys):
    def batch_loss(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore of it")

    monkeypatch.setattr("train.batch_loss", batch_loss)
    with pytest.raises(SystemExit) as ended:
        main(tiny_run(synthetic_corpora, tmp_path))
    said = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 1 and said.startswith("train.py: the device has too little memory (CUDA out of memory.")
    assert "lower training.batch_size, and training.accumulation_steps higher" in said


@pytest.mark.parametrize("allocate", [torch.empty, np.empty, bytearray])
def test_a_cpu_without_memory_ends_in_that_sentence_too(allocate):
    said = "^the device has too little memory .* lower training.batch_size"
    with pytest.raises(Stopped, match=said), faults_in_words():
        allocate(2**55)


@pytest.mark.parametrize("num_proc", [None, 1])
def test_streamed_data_that_are_lost_end_in_a_sentence_and_the_run_goes_on_when_they_are_back(
    num_proc, synthetic_corpora, tmp_path
):
    data_dir = shutil.copytree(synthetic_corpora, tmp_path / "data")
    arguments = tiny_run(data_dir, tmp_path / "out", "--data.streaming=true", EVERY_STEP)
    arguments += [f"--data.num_proc={num_proc}"] if num_proc else []
    run = Run(arguments, tmp_path / "log", before=note_steps)
    run.wait_until(lambda: run.said().count("step") >= 3)
    data_dir.rename(tmp_path / "elsewhere")
    assert run.wait() == [1], run.said()
    assert "train.py: a clip can no longer be read (" in run.said() and "Traceback" not in run.said()
    assert "No such file or directory" in run.said()
    (tmp_path / "elsewhere").rename(data_dir)
    resumed_to_the_end(arguments, tmp_path / "log")


def test_a_cache_that_is_deleted_is_still_there_for_the_run_that_has_it_open(places, tmp_path, monkeypatch):
    monkeypatch.setenv("SER_CACHE_DIR", str(tmp_path / "cache"))
    arguments, _, log = places("uncached")
    run = Run(arguments, log, before=note_steps)
    run.wait_until(lambda: run.said().count("step") >= 3)
    shutil.rmtree(tmp_path / "cache")
    assert run.wait() == [0], run.said()


@pytest.mark.parametrize("processes", [1, 2])
def test_a_loss_that_is_not_finite_ends_in_a_sentence_on_every_process(processes, places):
    arguments, _, log = places("diverged")
    wild = ["--training.optimizer=sgd", "--training.learning_rate=1e30", "--training.schedule=constant"]
    run = Run([*arguments, *wild], log, processes)
    assert set(run.wait()) == {1}, run.said()
    assert "the loss is no longer finite in epoch 1, batch 2" in run.said() and "Traceback" not in run.said()
    assert "lower training.learning_rate" in run.said()


# which run is it


def refused(arguments: list[str], log: Path, processes: int = 1) -> str:
    run = Run(arguments, log, processes)
    assert set(run.wait()) == {1}, run.said()
    assert "Traceback" not in run.said()
    return run.said()


def test_a_stopped_run_goes_on_only_as_it_was_started(synthetic_corpora, tmp_path):
    data_dir = shutil.copytree(synthetic_corpora, tmp_path / "data")
    arguments = tiny_run(data_dir, tmp_path / "out", EVERY_STEP)
    noise = tmp_path / "noise" / "street.wav"
    noise.parent.mkdir()
    soundfile.write(noise, np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000)
    arguments += [f"--augmentation.noise.folder={noise.parent}", "--training.cpu_threads=1"]
    log, checkpoint = tmp_path / "log", tmp_path / "out" / "checkpoint.safetensors"
    run = Run([*arguments, "--resume"], log, before=partial(die_in, "replace", 3))
    run.wait()
    assert f"no checkpoint in {tmp_path / 'out'}: starting from the beginning" in run.said()
    before = checkpoint.read_bytes()

    assert "holds a run that was stopped; --resume goes on with it, --overwrite" in refused(arguments, log)
    arguments += ["--resume"]
    other = refused([*arguments, "--training.weight_decay=0.5"], log)
    assert "training.weight_decay was 0.05 and is 0.5 now" in other
    assert "number of processes was 1 and is 2 now" in refused(arguments, log, 2)
    clip = next((data_dir / "RAVDESS" / "Actor_05").iterdir())
    clip.rename(tmp_path / "clip.wav")
    assert "split was " in refused(arguments, log)
    shutil.copy(next((data_dir / "RAVDESS" / "Actor_06").iterdir()), clip)
    clip.write_bytes(clip.read_bytes()[:-2000])
    assert "sound of the clips was " in refused(arguments, log)
    shutil.move(tmp_path / "clip.wav", clip)
    noise.rename(tmp_path / "noise.wav")
    soundfile.write(noise, np.random.default_rng(1).normal(0, 0.1, 16_000), 16_000)
    assert "sound of the noises was " in refused(arguments, log)
    (tmp_path / "noise.wav").replace(noise)
    assert checkpoint.read_bytes() == before

    checkpoint.write_bytes(before[:-100])
    assert "cannot be read" in refused(arguments, log) and "--overwrite" in refused(arguments, log)
    checkpoint.write_bytes(before)
    resumed_to_the_end([*arguments[:-1], "--training.cpu_threads=2"], log)
    assert "the run had 1 CPU thread a process and goes on with 2, which sum in another order" in log.read_text()


@pytest.mark.parametrize("text", ["{", "{}", "[]", "null", '{"identity": []}', '{"identity": {}}'])
def test_a_checkpoint_whose_figures_are_damaged_is_refused_like_one_that_was_cut(text, tmp_path):
    (tmp_path / "checkpoint.safetensors").write_bytes(save({}, {"run": text}))
    with pytest.raises(CheckpointError, match="checkpoint.safetensors cannot be read .*start anew with --overwrite"):
        Checkpoint(tmp_path, Mock(), {}, None, {}).restore()


def test_another_base_model_in_the_same_place_makes_another_run():
    settings = load_settings(ROOT / "configs" / "ravdess_tess_cnn.yaml")
    bases = [SERFeatureExtractor(n_mfcc=n_mfcc).to_json_string() for n_mfcc in (80, 80, 40)]
    first, same, other = (
        identity_of(settings, "", [], [], base, Mock())["features of the base model"] for base in bases
    )
    assert first == same != other


def test_a_finished_run_is_left_alone_unless_it_shall_be_overwritten(places):
    arguments, output_dir, log = places("finished")
    arguments += ["--training.epochs=1"]
    assert Run(arguments, log).wait() == [0]
    assert not (output_dir / "checkpoint.safetensors").exists()
    weights = (output_dir / "model.safetensors").read_bytes()
    assert "holds a finished run; --resume goes on with it, --overwrite starts anew" in refused(arguments, log)
    again = Run([*arguments, "--resume", "--training.push_private=true"], log)
    assert again.wait() == [0] and "holds a finished run: nothing is left to do" in again.said()
    assert "training.epochs was 1 and is 2 now" in refused([*arguments, "--resume", "--training.epochs=2"], log)
    assert (output_dir / "model.safetensors").read_bytes() == weights
    run = Run([*arguments, "--overwrite", "--seed=1", "--training.epochs=500"], log, before=note_steps)
    run.wait_until(lambda: "step" in run.said())  # long before the first model is saved
    run.signal(signal.SIGTERM)
    assert run.wait() == [128 + signal.SIGTERM], run.said()
    left = {path.name for path in output_dir.iterdir() if path.suffix != ".py"}  # nothing of the run before
    assert left == {"checkpoint.safetensors", "settings.yaml", "left_out.csv", "logs"}
    assert load_settings(output_dir / "settings.yaml").seed == 1
    assert Run([*arguments, "--overwrite", "--seed=1"], log).wait() == [0]
    assert (output_dir / "model.safetensors").read_bytes() != weights


def test_only_what_a_run_wrote_is_removed(tmp_path):
    for name in ("README.md", "notes.txt", "logs/mine.log"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    remove_run(tmp_path)  # no run was here
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", "notes.txt", "logs"}
    (tmp_path / "settings.yaml").touch()
    remove_run(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt"}


def test_a_second_run_is_kept_out_of_the_folder_until_the_first_has_ended(places):
    arguments, output_dir, log = places("shared")
    arguments += ["--training.epochs=1"]
    with alone(output_dir):
        said = refused(arguments, log)
        assert f"another train.py is writing into {output_dir}; wait for its end, or give another" in said
        assert [path.name for path in output_dir.iterdir()] == [".lock"]
    assert not output_dir.exists()
    assert Run(arguments, log).wait() == [0]
    assert not (output_dir / ".lock").exists()


# ways to compute


def compile_quickly(die_at: int | None, rank: int) -> None:
    """Dynamo traces and guards as ever, but what it found is run as it is: inductor takes a minute."""
    torch.compile = partial(torch.compile, backend="eager")
    if die_at:
        die_in("replace", die_at, rank)


def test_a_compiled_run_resumes_and_its_weights_keep_their_names(places):
    outcomes = []
    for deaths in ([None], [3, None]):
        arguments, output_dir, log = places("compiled")
        arguments += ["--training.compile=true", "--training.epochs=1", "--training.max_frames=40", EVERY_STEP]
        arguments += ["--model.backbone=shallow_cnn", "--model.backbone_options={}", "--resume"]
        for death in deaths:
            run = Run(arguments, log, before=partial(compile_quickly, death))
            assert run.wait() == [-signal.SIGKILL if death else 0], run.said()
        outcomes.append(outcome(output_dir))
    assert "resumed from" in run.said() and outcomes[0] == outcomes[1]
    assert not any("_orig_mod" in name for name in load_file(output_dir / "model.safetensors"))


def test_bf16_gives_other_bits_but_float32_weights_and_auto_is_one_of_the_two(places):
    weights = {}
    for precision in ("no", "bf16", "auto"):
        arguments, output_dir, log = places(precision)
        run = Run([*arguments, f"--training.mixed_precision={precision}", "--training.epochs=1"], log)
        assert run.wait() == [0], run.said()
        weights[precision] = outcome(output_dir)[0]
        kept = load_file(output_dir / "model.safetensors").values()
        assert {weight.dtype for weight in kept} <= {torch.float32, torch.int64}
    assert weights["no"] != weights["bf16"]
    assert weights["auto"] == weights["bf16" if "parameters on cpu, bf16" in run.said() else "no"]


def test_fp16_without_a_gpu_is_refused(places):
    arguments, _, log = places("fp16")
    assert "fp16, which needs a GPU; take bf16 or no" in refused([*arguments, "--training.mixed_precision=fp16"], log)


# what it shows


def on_a_terminal(_rank: int) -> None:
    sys.stderr.isatty = lambda: True


def test_a_terminal_gets_a_bar_and_a_file_a_line_an_epoch(places):
    for before in (None, on_a_terminal):
        arguments, _, log = places("shown")
        run = Run([*arguments, "--training.epochs=1"], log, before=before)
        assert run.wait() == [0], run.said()
        assert run.said().count("clips/s, ") == 1 and "epoch 1/1: loss " in run.said()
        bar = [line for line in run.said().replace("\r", "\n").splitlines() if "clip/s, " in line and "loss=" in line]
        assert bool(bar) == bool(before)
