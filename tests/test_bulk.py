"""Predictions for many files: stopped anywhere and gone on with, by one process or two, the CSV is the same."""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile
import torch
from accelerate import PartialState

from ser_model import SERConfig, SERFeatureExtractor, SERForAudioClassification
from ser_model.__main__ import main
from ser_model.bulk import BATCH_SIZE, BulkError, predict_files
from ser_model.inference import EmotionRecognizer, predicted_rows, write_predictions
from ser_model.labels import EMOTIONS
from torture.faults import fill, small_disk

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
TWO = [str(Path(sys.executable).with_name("accelerate")), "launch", "--config_file=configs/accelerate/cpu_2.yaml", "-m"]


def model(folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    config = SERConfig(id2label=dict(enumerate(EMOTIONS)), backbone_options={"widths": [8, 8, 8, 8]})
    SERForAudioClassification(config).save_pretrained(folder)
    SERFeatureExtractor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory) -> Path:
    return model(tmp_path_factory.mktemp("model"), seed=0)


@pytest.fixture(scope="module")
def recognizer(model_dir) -> EmotionRecognizer:
    return EmotionRecognizer.from_pretrained(model_dir)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Ten batches and a bit: a voice cut in many lengths, two files that are no sound, a name with a line break."""
    folder = tmp_path_factory.mktemp("clips")
    voice, rate = soundfile.read(ROOT / "examples" / "synthetic_lively_voice.flac")
    for number in range(10 * BATCH_SIZE + 3):
        soundfile.write(folder / f"{number:03}.wav", voice[: rate // 4 + 300 * number], rate)
    (folder / "007.wav").write_text("no sound")
    (folder / "100.wav").write_bytes(b"")
    (folder / "101.wav").rename(folder / "101\n.wav")
    return folder


@pytest.fixture(scope="module")
def files(clips) -> list[str]:
    return sorted(map(str, clips.iterdir()))


@pytest.fixture(scope="module")
def whole(recognizer, files, tmp_path_factory) -> bytes:
    """The CSV of a run that nothing stopped."""
    output = tmp_path_factory.mktemp("whole") / "out.csv"
    answered, failed = predict_files(recognizer, files, output, PartialState())
    assert answered + failed == len(files) and failed >= 2
    return output.read_bytes()


def stopped_after(batches: int, recognizer, files, output: Path, monkeypatch) -> Path:
    """The folder that a run leaves which stops while it judges the batch after so many; its last line is cut off."""
    judged = []

    def judge(*arguments):
        if len(judged) == batches:
            raise KeyboardInterrupt
        judged.append(arguments)
        return predicted_rows(*arguments)

    monkeypatch.setattr("ser_model.bulk.predicted_rows", judge)
    with pytest.raises(KeyboardInterrupt):
        predict_files(recognizer, files, output, PartialState())
    monkeypatch.undo()
    [part] = (parts := output.with_name("out.csv.parts")).glob("*.jsonl")
    part.write_bytes(part.read_bytes()[:-20])
    return parts


def test_the_rows_are_those_of_the_terminal_in_the_order_of_the_files(recognizer, files, whole, tmp_path):
    with open(tmp_path / "terminal.csv", "w", newline="") as terminal:
        write_predictions(recognizer, files, terminal, BATCH_SIZE)
    assert (tmp_path / "terminal.csv").read_bytes() == whole
    with open(tmp_path / "terminal.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == files
    assert "007.wav" in rows[7]["error"] and rows[50]["label"] in EMOTIONS


def test_killed_in_the_middle_and_finished_by_two_processes_gives_the_same_bytes(
    model_dir, clips, files, whole, tmp_path
):
    output, parts = tmp_path / "out.csv", tmp_path / "out.csv.parts"
    command = ["ser_model", "predict", str(clips), f"--model={model_dir}", f"--output={output}"]
    process = subprocess.Popen(
        [sys.executable, "-m", *command], cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    while not any(part.read_bytes().count(b"\n") >= 2 for part in parts.glob("*.jsonl")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert not output.exists() and (parts / "job.json").exists()
    done = sum(part.read_bytes().count(b"\n") for part in parts.glob("*.jsonl"))
    assert 2 <= done <= 10
    again = subprocess.run([*TWO, *command], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    assert f"{done} batches of {BATCH_SIZE} files are done, {11 - done} to go" in again.stderr + again.stdout
    assert again.stderr.count("answered") == 1  # one process speaks for both
    assert output.read_bytes() == whole and not parts.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a small disk")
def test_a_full_disk_is_told_and_the_same_command_goes_on_once_there_is_room(model_dir, clips, whole, tmp_path):
    with small_disk(tmp_path / "disk", size_mb=1) as disk:
        command = ["predict", str(clips), f"--model={model_dir}", f"--output={disk / 'out.csv'}"]
        fill(disk, left_kb=8)  # of some 25
        with pytest.raises(SystemExit, match="free some space on the disk; the same command goes on from here"):
            main(command)
        assert not (disk / "out.csv").exists()
        (disk / "filler").unlink()
        assert main(command) == 1  # one of the files is no recording
        assert (disk / "out.csv").read_bytes() == whole


def test_a_half_written_line_is_judged_again_and_what_is_whole_is_not(recognizer, files, whole, tmp_path, monkeypatch):
    stopped_after(4, recognizer, files, output := tmp_path / "out.csv", monkeypatch)
    judged = []

    def judge(recognizer, batch):
        judged.append(batch[0])
        return predicted_rows(recognizer, batch)

    monkeypatch.setattr("ser_model.bulk.predicted_rows", judge)
    predict_files(recognizer, files, output, PartialState())
    assert judged == files[3 * BATCH_SIZE :: BATCH_SIZE]  # the fourth, whose line was cut off, and those after it
    assert output.read_bytes() == whole


def test_unfinished_rows_of_other_files_or_another_model_are_neither_lost_nor_mixed(
    recognizer, files, whole, tmp_path, monkeypatch
):
    parts = stopped_after(2, recognizer, files, output := tmp_path / "out.csv", monkeypatch)
    before = {path.name: path.read_bytes() for path in parts.iterdir()}
    with pytest.raises(BulkError, match="another run, with other files and count"):
        predict_files(recognizer, files[1:], output, PartialState())
    other = EmotionRecognizer.from_pretrained(model(tmp_path / "other", seed=1))
    with pytest.raises(BulkError, match="another run, with other model"):
        predict_files(other, files, output, PartialState())
    assert {path.name: path.read_bytes() for path in parts.iterdir()} == before
    predict_files(recognizer, files, output, PartialState())
    assert output.read_bytes() == whole


def test_a_break_while_the_parts_are_cleared_away_loses_nothing(recognizer, files, whole, tmp_path, monkeypatch):
    output = tmp_path / "out.csv"

    def stop(folder):
        raise KeyboardInterrupt

    monkeypatch.setattr("ser_model.bulk.shutil.rmtree", stop)
    with pytest.raises(KeyboardInterrupt):
        predict_files(recognizer, files[:5], output, PartialState())
    first = output.read_bytes()
    monkeypatch.undo()
    predict_files(recognizer, files[:5], output, PartialState())
    assert output.read_bytes() == first and not output.with_name("out.csv.parts").exists()


def test_a_finished_csv_is_not_written_over(recognizer, files, tmp_path):
    (output := tmp_path / "out.csv").write_text("mine")
    with pytest.raises(BulkError, match="is there already; delete it or choose another --output"):
        predict_files(recognizer, files, output, PartialState())
    with pytest.raises(BulkError, match="is a folder; name a CSV file to write"):
        predict_files(recognizer, files, tmp_path, PartialState())
    assert output.read_text() == "mine"


def test_a_folder_that_is_not_there_ends_in_one_sentence(recognizer, files, tmp_path):
    with pytest.raises(BulkError, match="no folder .*absent to write out.csv to"):
        predict_files(recognizer, files, tmp_path / "absent" / "out.csv", PartialState())


def test_nobody_is_told_of_loading_or_of_a_reader_that_has_seen_enough(model_dir):
    clips = map(str, sorted((ROOT / "examples").glob("*.flac")))
    command = [sys.executable, "-m", "ser_model", "predict", "--model", str(model_dir), *clips]
    reading, writing = os.pipe()
    os.close(reading)
    run = subprocess.run(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (run.returncode, run.stderr) == (1, "")


def test_two_processes_evaluate_as_one_does(model_dir, synthetic_corpora, tmp_path):
    def command(name: str) -> list[str]:
        output = [f"--output={tmp_path / name}.json", f"--predictions={tmp_path / name}.csv"]
        config = f"--config={ROOT / 'configs' / 'ravdess_tess_cnn_random.yaml'}"
        return ["evaluate", str(model_dir), config, f"--data-dir={synthetic_corpora}", *output]

    assert main(command("one")) == 0
    done = subprocess.run(
        [*TWO, "ser_model", *command("two")], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("unknown whether the speakers are unseen") == 1  # one process speaks for both
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert one["count"] % 64  # the last batches are not full
    assert two["confusion_matrix"] == one["confusion_matrix"]
    assert two["log_loss"] == pytest.approx(one["log_loss"], abs=1e-5)
    rows = [list(csv.DictReader((tmp_path / f"{name}.csv").open())) for name in ("one", "two")]
    assert [row["path"] for row in rows[1]] == [row["path"] for row in rows[0]]
    for first, second in zip(*rows, strict=True):
        for name in EMOTIONS:
            assert float(second[name]) == pytest.approx(float(first[name]), abs=2e-5)
