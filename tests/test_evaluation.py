import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from accelerate import Accelerator
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForAudioClassification,
)

from ser_model import SERConfig, SERFeatureExtractor, SERForAudioClassification
from ser_model.__main__ import main
from ser_model.corpora import find_utterances
from ser_model.data import make_split
from ser_model.evaluation import EvaluationError, evaluate, split_file, unseen
from ser_model.inference import EmotionRecognizer
from ser_model.labels import EMOTIONS
from ser_model.settings import Settings
from ser_model.splits import SplitError, manifest, speakers_heard

CORPORA = [{"name": "ravdess"}]
TRAINED_ON = {"kind": "speakers", "test": ["ravdess-01", "ravdess-02"], "validation": ["ravdess-03", "ravdess-04"]}
CHECKPOINT = Path(__file__).resolve().parent.parent / "checkpoints" / "ser-cnn-8"


def settings(split=TRAINED_ON, labels=8) -> Settings:
    return Settings.model_validate(
        {"name": "t", "data": {"corpora": CORPORA, "num_proc": 1}, "split": split, "labels": labels}
    )


def judge(folder: Path, settings: Settings, data_dir: Path):
    return evaluate(EmotionRecognizer.from_pretrained(folder), settings, data_dir, split_manifest=split_file(folder))


@pytest.fixture(scope="module")
def model_dir(synthetic_corpora, tmp_path_factory) -> Path:
    """An untrained model that says whom it was trained on."""
    folder = tmp_path_factory.mktemp("model")
    utterances = find_utterances(synthetic_corpora, CORPORA).utterances
    labels = [utterance.emotion for utterance in utterances]
    content = manifest(make_split(utterances, labels, settings().split, 0), utterances, synthetic_corpora)
    (folder / "split.json").write_text(json.dumps(content))
    torch.manual_seed(0)
    options = {"widths": [8, 8, 8, 8], "hidden_size": 16}
    names = dict(enumerate(reversed(EMOTIONS)))  # in another order than the config's
    config = SERConfig(id2label=names, backbone_options=options, training_split=content["hash"])
    SERForAudioClassification(config).save_pretrained(folder)
    SERFeatureExtractor().save_pretrained(folder)
    return folder


def test_a_clip_shorter_than_a_frame_is_left_out_not_stumbled_over(model_dir, synthetic_corpora, tmp_path):
    data_dir = shutil.copytree(synthetic_corpora, tmp_path / "data")
    [short] = data_dir.glob("RAVDESS/Actor_01/03-01-03-01-01-01-01.wav")
    samples, rate = soundfile.read(short)
    soundfile.write(short, samples[: round(0.03 * rate)], rate)  # the frame of the model's features is 40 ms
    figures, predictions = judge(model_dir, settings(), data_dir)
    assert figures["count"] == 31 and not any(clip["path"].endswith(short.name) for clip in predictions.clips)


def test_figures_are_those_of_the_rows(model_dir, synthetic_corpora, tmp_path):
    figures, predictions = judge(model_dir, settings(), synthetic_corpora)
    predictions.write(tmp_path / "p.csv")
    rows = list(csv.DictReader((tmp_path / "p.csv").open()))
    assert figures["count"] == len(rows) == 32
    right = [row["label"] == row["prediction"] for row in rows]
    assert figures["accuracy"] == pytest.approx(sum(right) / 32, abs=1e-5)
    for row in rows:
        assert row["prediction"] == max(EMOTIONS, key=lambda name: float(row[name]))
        assert row["label"] == EMOTIONS[int(Path(row["path"]).name.split("-")[2]) - 1]
        assert (synthetic_corpora / row["path"]).is_file() and not Path(row["path"]).is_absolute()
    assert figures["by_sex"]["female"]["count"] == figures["by_sex"]["male"]["count"] == 16


def test_a_model_on_the_cpu_is_judged_after_one_on_a_gpu(model_dir, synthetic_corpora, monkeypatch):
    class OnGPU(Accelerator):  # Accelerate's own refusal, for there is none here
        def __init__(self, cpu):
            assert not cpu, "AcceleratorState has already been initialized"
            super().__init__()

    Accelerator(cpu=True)
    monkeypatch.setattr("ser_model.evaluation.Accelerator", OnGPU)
    assert judge(model_dir, settings(), synthetic_corpora)[0]["count"]


def test_speakers_that_were_not_heard_are_called_unseen(model_dir, synthetic_corpora):
    figures, _ = judge(model_dir, settings(), synthetic_corpora)
    assert figures["speaker_disjoint"] is True


@pytest.mark.parametrize("split", [{**TRAINED_ON, "test": ["ravdess-01", "ravdess-07"]}, {"kind": "random"}])
def test_a_split_of_speakers_that_were_heard_is_not_called_unseen_whatever_the_config_says(
    model_dir, synthetic_corpora, split
):
    figures, _ = judge(model_dir, settings(split), synthetic_corpora)
    assert figures["speaker_disjoint"] is False
    assert "heard in training" in figures["speaker_disjoint_because"]


@pytest.mark.parametrize(
    ("spoil", "because"),
    [
        (lambda path: path.unlink(), "no split.json"),
        (lambda path: path.write_text(path.read_text().replace("Actor_05", "Actor_55", 1)), "altered"),
        (lambda path: path.write_text("{}"), "no split manifest"),
    ],
)
def test_nothing_is_claimed_where_nobody_can_tell(model_dir, synthetic_corpora, tmp_path, spoil, because):
    copy = Path(shutil.copytree(model_dir, tmp_path / "copy"))
    spoil(copy / "split.json")
    figures, _ = judge(copy, settings(), synthetic_corpora)
    assert figures["speaker_disjoint"] is None
    assert because in figures["speaker_disjoint_because"]


def test_other_labels_are_refused(model_dir, synthetic_corpora):
    with pytest.raises(EvaluationError, match="set `labels` in the config"):
        judge(model_dir, settings(labels=7), synthetic_corpora)


def test_a_speaker_was_heard_in_whatever_clips_and_format(synthetic_corpora, tmp_path):
    """Trained on speech; asked about the same actors elsewhere, in another format, and about somebody's folder."""
    speech = find_utterances(synthetic_corpora, CORPORA).utterances
    split = make_split(speech, [clip.emotion for clip in speech], settings().split, 0)

    def written(clips) -> Path:
        path = tmp_path / "split.json"
        path.write_text(json.dumps(manifest(split, clips, synthetic_corpora)))
        return path

    trained_on = {speech[index].speaker for index in split.train + split.validation}
    songs = [
        replace(clip, path=Path("x", clip.path.with_suffix(".mp3").name.replace("-01", "-02", 1))) for clip in speech
    ]
    mine = [replace(clip, path=Path("mine", f"{number}.wav"), corpus="mine") for number, clip in enumerate(speech)]
    for asked in (speech, songs, mine):  # the model's clips name their speakers, wherever they are
        assert speakers_heard(written(speech), asked, synthetic_corpora)[1] == trained_on
    tabled = [replace(clip, corpus="mine", speaker="mine-somebody") for clip in speech]  # a table's own names for them
    data = SimpleNamespace(utterances=tabled, split=split, folders=(synthetic_corpora,))
    path, split_hash = written(speech), manifest(split, speech, synthetic_corpora)["hash"]
    assert unseen(split_hash, path, data, "train")[0] is False
    assert unseen(split_hash, path, data, "test")[0] is True
    theirs = [replace(clip, path=Path("theirs", clip.path.name + "x"), corpus="theirs") for clip in mine]
    tested_alone = [*theirs, *(mine[index] for index in split.test)]  # clips that the model knows, but never heard
    for asked in (theirs, tested_alone):
        with pytest.raises(SplitError, match=f"{len(split.train + split.validation)} clips .* are not in the data"):
            speakers_heard(written(mine), asked, synthetic_corpora)


def test_under_a_condition_the_same_clips_are_heard_differently(model_dir, synthetic_corpora):
    recognizer = EmotionRecognizer.from_pretrained(model_dir)
    _, clean = evaluate(recognizer, settings(), synthetic_corpora)
    figures, noisy = evaluate(recognizer, settings(), synthetic_corpora, condition="noise_0db")
    assert figures["condition"] == "noise_0db" and {clip["condition"] for clip in noisy.clips} == {"noise_0db"}
    assert [clip["path"] for clip in noisy.clips] == [clip["path"] for clip in clean.clips]
    assert abs(noisy.probabilities - clean.probabilities).max() > 1e-3
    _, again = evaluate(recognizer, settings(), synthetic_corpora, condition="noise_0db")
    assert (again.probabilities == noisy.probabilities).all()
    with pytest.raises(EvaluationError, match="unknown condition 'noise_5db'; did you mean 'noise_"):
        evaluate(recognizer, settings(), synthetic_corpora, condition="noise_5db")


def test_a_model_of_another_kind_comes_through_the_same_door(synthetic_corpora, tmp_path):
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8,) * 7,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, classifier_proj_size=8,
        id2label=dict(enumerate(EMOTIONS)), label2id={name: index for index, name in enumerate(EMOTIONS)},
    )  # fmt: skip
    Wav2Vec2ForSequenceClassification(config).save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(tmp_path)
    figures, _ = judge(tmp_path, settings(), synthetic_corpora)
    assert figures["count"] == 32 and figures["speaker_disjoint"] is None
    half = EmotionRecognizer.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert np.isfinite(half.scores([np.ones(16_000, np.float32)])).all()


def test_whisper_pads_to_its_own_length(tmp_path):
    config = WhisperConfig(
        d_model=16, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=16, decoder_layers=1,
        decoder_attention_heads=2, decoder_ffn_dim=16, classifier_proj_size=8, vocab_size=60, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, suppress_tokens=None, begin_suppress_tokens=None,
        id2label=dict(enumerate(EMOTIONS)), label2id={name: index for index, name in enumerate(EMOTIONS)},
    )  # fmt: skip
    WhisperForAudioClassification(config).save_pretrained(tmp_path)
    WhisperFeatureExtractor().save_pretrained(tmp_path)
    scores = EmotionRecognizer.from_pretrained(tmp_path).scores([np.ones(20_000, np.float32)])
    assert scores.shape == (1, 8) and np.isfinite(scores).all()


def test_command_line_says_first_whether_the_speakers_are_unseen(model_dir, synthetic_corpora, tmp_path, capsys):
    (tmp_path / "c.yaml").write_text(json.dumps(settings().model_dump(mode="json")))
    command = ["evaluate", str(model_dir), "--config", str(tmp_path / "c.yaml"), "--data-dir", str(synthetic_corpora)]
    files = ["--output", str(tmp_path / "f.json"), "--predictions", str(tmp_path / "p.csv")]
    assert main([*command, *files, "--condition", "telephone"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("unseen speakers: none of these") and "95 % intervals over 2 speakers" in said
    assert json.loads((tmp_path / "f.json").read_text())["count"] == 32
    rows = list(csv.DictReader((tmp_path / "p.csv").open()))
    assert len(rows) == 32 and {row["condition"] for row in rows} == {"telephone"}
    with pytest.raises(SystemExit, match="no model at"):
        main([*command[:1], str(tmp_path / "absent"), *command[2:]])


def test_a_test_set_of_ones_own_is_evaluated_whole_without_a_split(model_dir, synthetic_corpora, tmp_path, capsys):
    """One of the two actors that the model has not heard, sad and fearful alone, which no split could be made of."""
    shutil.copytree(synthetic_corpora / "RAVDESS" / "Actor_01", tmp_path / "data" / "RAVDESS" / "Actor_01")
    (tmp_path / "c.yaml").write_text(json.dumps(settings().model_dump(mode="json")))
    command = ["evaluate", str(model_dir), f"--config={tmp_path / 'c.yaml'}", f"--data-dir={tmp_path / 'data'}"]
    with pytest.raises(SystemExit, match="test speaker 'ravdess-02' is not in the data"):
        main(command)
    clips = sorted((tmp_path / "data").rglob("*.wav"))
    for clip in clips:
        if clip.name.split("-")[2] not in ("04", "06"):
            clip.unlink()
    assert main([*command, "--part=all", f"--output={tmp_path / 'f.json'}", "--data.strict", "true"]) == 0
    assert capsys.readouterr().out.startswith("unseen speakers: none of these speakers was heard")
    figures = json.loads((tmp_path / "f.json").read_text())
    assert (figures["part"], figures["split"]) == ("all", "all")
    assert figures["count"] == len(list((tmp_path / "data").rglob("*.wav"))) > 0
    assert set(figures["recall"]) == {"sad", "fearful"} and figures["interval"]["speakers"] == 1
    (tmp_path / "data" / "RAVDESS" / "Actor_01" / clips[-1].name).write_bytes(b"no sound")
    assert main([*command, "--part=all", f"--output={tmp_path / 'f.json'}"]) == 0
    said = f"{figures['count']} clips heard, 1 file left out: 1 unreadable; --data.strict true lists them"
    assert said in capsys.readouterr().out
    assert json.loads((tmp_path / "f.json").read_text())["left_out"] == {"unreadable": 1}


def test_settings_can_be_changed_where_a_config_is_evaluated_and_nowhere_else(model_dir, tmp_path, capsys):
    (tmp_path / "c.yaml").write_text(json.dumps(settings().model_dump(mode="json")))
    command = ["evaluate", str(model_dir), f"--config={tmp_path / 'c.yaml'}", f"--data-dir={tmp_path}"]
    with pytest.raises(SystemExit, match="unknown key 'split.tset'; did you mean 'test'"):
        main([*command, "--split.tset", "0.3"])
    with pytest.raises(SystemExit):
        main(["draw", str(model_dir), f"--output={tmp_path / 'n.svg'}", "--split.test=0.3"])
    assert "unrecognized arguments: --split.test=0.3" in capsys.readouterr().err


def test_the_default_checkpoint_says_whom_it_heard(data_dir):
    test = ["ravdess-01", "ravdess-11", "ravdess-20", "ravdess-21"]
    figures, _ = judge(CHECKPOINT, settings({"kind": "speakers", "test": test, "validation": ["ravdess-06"]}), data_dir)
    assert figures["speaker_disjoint"] is False
    assert "4 of these speakers were heard in training" in figures["speaker_disjoint_because"]
    assert figures["count"] == 240 and figures["uar"] > 0.75


def test_speakers_whom_a_table_renames_are_counted_once(data_dir, tmp_path):
    """They are known by the names of the files, and told by those of the table."""
    clips = find_utterances(data_dir, [{"name": "ravdess"}]).utterances
    clips = [clip for clip in clips if clip.path.stem.endswith(("-01-01", "-01-02", "-01-03", "-01-04"))]
    rows = [f"{clip.path},{clip.emotion},p{clip.speaker[-2:]}" for clip in clips]
    (tmp_path / "mine.csv").write_text("\n".join(["path,label,speaker", *rows]))
    own = {"data": {"corpora": [{"name": "folder", "path": "mine.csv"}]}}
    config = settings({"kind": "speakers", "test": 2, "validation": 1}).model_dump(mode="json") | own
    figures, _ = judge(CHECKPOINT, Settings.model_validate(config), tmp_path)
    assert figures["speaker_disjoint_because"].startswith("2 of these speakers were heard in training")
