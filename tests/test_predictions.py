import csv
import errno
import gzip
from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset
from scipy.special import softmax

from ser_model.predictions import Predictions, PredictionsError

NAMES = ("calm", "path")  # free labels may be called what a column is called
RUN = {"seed": 3, "fold": 2, "split_hash": "f00", "temperature": 0.5}


@pytest.fixture
def predictions(tmp_path) -> Predictions:
    """Four clips, the last of unknown sex, the first three right; of the third both probabilities round to 0.50000."""
    clips = {
        "path": [str(tmp_path / "corpus" / f"{index}.wav") for index in range(4)],
        "corpus": ["ravdess"] * 4,
        "speaker": ["a", "a", "b", "b"],
        "sex": ["female", "female", "male", None],
        "intensity": ["normal", "strong", None, None],
    }
    probabilities = np.array([[0.9999999, 1e-7], [0.2, 0.8], [0.4999999, 0.5000001], [0.3, 0.7]])
    return Predictions.of(Dataset.from_dict(clips), NAMES, np.array([0, 1, 1, 0]), probabilities, tmp_path, RUN)


def test_csv_has_a_row_a_clip_and_no_folder_of_this_machine(predictions, tmp_path):
    predictions.write(tmp_path / "p.csv")
    header, *rows = csv.reader((tmp_path / "p.csv").open())
    run = ["condition", "seed", "fold", "split_hash", "temperature"]
    assert header == ["path", "corpus", "speaker", "sex", "intensity", "label", "prediction", "calm", "path", *run]
    assert rows[1] == "corpus/1.wav ravdess a female strong path path 0.20000 0.80000 clean 3 2 f00 0.5".split()
    assert rows[3][3:5] == ["", ""]


def test_read_back_the_figures_are_the_same_but_for_rounding(predictions, tmp_path):
    predictions.write(tmp_path / "p.csv")
    before, after = predictions.figures(), Predictions.read(tmp_path / "p.csv").figures()
    assert before["accuracy"] == 0.75
    assert before.keys() == after.keys() and set(after["by_sex"]) == {"female", "male"}
    for key, value in before.items():
        if key not in ("log_loss", "ece", "reliability"):
            assert after[key] == value
    assert after["log_loss"] == pytest.approx(before["log_loss"], abs=1e-4)
    assert after["ece"] == pytest.approx(before["ece"], abs=1e-4)
    assert after["by_intensity"]["normal"]["count"] == 1 and set(after["by_intensity"]) == {"normal", "strong"}
    Predictions.read(tmp_path / "p.csv").write(tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_text() == (tmp_path / "p.csv").read_text()


def test_sexes_are_compared_within_a_corpus(predictions):
    others = replace(predictions, clips=[clip | {"corpus": "tess", "sex": "female"} for clip in predictions.clips])
    alone, both = predictions.figures(), Predictions.joined([predictions, others]).figures()
    assert both["by_sex"] == {f"ravdess {sex}": own for sex, own in alone["by_sex"].items()}
    assert both["by_corpus"]["tess"]["interval"]["uar"] == others.interval()["uar"]
    assert "interval" not in alone["by_corpus"]["ravdess"]


def test_logits_are_those_before_the_temperature_divided_them(predictions):
    logits = predictions.logits()
    np.testing.assert_allclose(softmax(logits / 0.5, axis=1), predictions.probabilities, atol=1e-5)
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], 0.5 * np.log([4e-6, 4, 1, 7 / 3]), atol=1e-5)


def test_compressed_bytes_do_not_tell_the_time(predictions, tmp_path, monkeypatch):
    predictions.write(tmp_path / "p.csv", decimals=4)
    predictions.write(tmp_path / "p.csv.gz", decimals=4)
    packed = (tmp_path / "p.csv.gz").read_bytes()
    assert gzip.decompress(packed) == (tmp_path / "p.csv").read_bytes()
    assert b"0.2000,0.8000,clean" in gzip.decompress(packed)
    monkeypatch.setattr("time.time", lambda: 0.0)
    predictions.write(tmp_path / "later.csv.gz", decimals=4)
    assert (tmp_path / "later.csv.gz").read_bytes() == packed
    assert Predictions.read(tmp_path / "p.csv.gz").figures()["accuracy"] == 0.75


@pytest.mark.parametrize("content", [b"", b"path,label\na.wav,calm\n", b"\xff\x00"])
def test_a_file_of_other_columns_is_refused_in_a_sentence(content, tmp_path):
    (tmp_path / "p.csv").write_bytes(content)
    with pytest.raises(PredictionsError, match="make it again"):
        Predictions.read(tmp_path / "p.csv")
    with pytest.raises(PredictionsError, match="cannot be read"):
        Predictions.read(tmp_path / "absent.csv.gz")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda text: text[:-20], r"row 4 cannot be read \(\d+ values, where 14 were wanted\); make it again"),
        (lambda text: text + "\r\n", r"row 5 cannot be read \(0 values"),
        (lambda text: text.replace("strong,path,path", "strong,path,joy"), "row 2 .*'joy' is none of the labels calm"),
        (lambda text: text.replace("0.80000", "much"), "row 2 .*could not convert string to float: 'much'"),
    ],
    ids=["cut short", "a blank line", "a label unknown", "no number"],
)
def test_a_row_that_was_spoilt_is_named(predictions, tmp_path, spoil, said):
    predictions.write(tmp_path / "p.csv")
    (tmp_path / "p.csv").write_bytes(spoil((tmp_path / "p.csv").read_bytes().decode()).encode())
    with pytest.raises(PredictionsError, match=said):
        Predictions.read(tmp_path / "p.csv")


def test_compressed_bytes_that_were_spoilt_are_refused_in_a_sentence(predictions, tmp_path):
    predictions.write(tmp_path / "p.csv.gz")
    packed = (tmp_path / "p.csv.gz").read_bytes()
    (tmp_path / "p.csv.gz").write_bytes(packed[:20] + b"\xff" * 20 + packed[40:])
    with pytest.raises(PredictionsError, match="cannot be read"):
        Predictions.read(tmp_path / "p.csv.gz")


def test_a_write_that_fails_leaves_the_file_that_was_there(predictions, tmp_path, monkeypatch):
    predictions.write(tmp_path / "p.csv")
    before = (tmp_path / "p.csv").read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        predictions.at([0]).write(tmp_path / "p.csv")
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [before]


def test_parts_hold_their_own_rows_and_join_to_the_whole(predictions):
    parts = predictions.parted("speaker")
    assert list(parts) == ["a", "b"]
    assert parts["b"].labels.tolist() == [1, 0] and parts["b"].probabilities.tolist() == [
        [0.4999999, 0.5000001],
        [0.3, 0.7],
    ]
    joined = Predictions.joined(list(parts.values()))
    assert joined.clips == predictions.clips and (joined.probabilities == predictions.probabilities).all()
    with pytest.raises(PredictionsError, match="calm, path and of path, calm cannot be joined"):
        Predictions.joined([predictions, replace(predictions, names=NAMES[::-1])])


def test_pooled_folds_are_numbered_and_counted_together(predictions):
    pooled = Predictions.pooled([predictions, predictions])
    assert [clip["fold"] for clip in pooled.clips] == [1] * 4 + [2] * 4
    assert pooled.figures()["confusion_matrix"] == [[2, 2], [0, 4]]


def test_report_gives_each_label_and_both_averages(predictions):
    lines = [line.split() for line in predictions.report().splitlines()]
    assert "calm 1.000 0.500 0.667 2".split() in lines and "path 0.667 1.000 0.800 2".split() in lines
    assert "macro avg 0.833 0.750 0.733 4".split() in lines and "weighted avg 0.833 0.750 0.733 4".split() in lines
