"""The card of a model: true to the run's figures, read by the Hub's own classes, with pictures that can be seen."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard
from PIL import Image

from ser_model.__main__ import main
from ser_model.conditions import CONDITIONS
from ser_model.labels import label_scheme
from ser_model.metrics import emotion_metrics
from ser_model.reports import (
    CONDITIONS_IN_WORDS,
    confusion_picture,
    interval_words,
    model_card,
    never_right,
    protocol_words,
    reliability_picture,
    write_card,
)
from ser_model.settings import load_settings

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("neutral", "happy", "sad")


def run_result(seed: int, speaker_disjoint: bool = True) -> dict:
    """What train.py writes, for 60 clips that are right more often than not."""
    rng = np.random.default_rng(seed)
    references = np.arange(60) % 3
    probabilities = rng.dirichlet([1, 1, 1], 60) + 0.8 * np.eye(3)[references]
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    test = emotion_metrics(probabilities, references, NAMES)
    for key, groups in (("corpus", ("ravdess", "tess")), ("sex", ("female", "male"))):
        halves = [emotion_metrics(probabilities[part::2], references[part::2], NAMES) for part in (0, 1)]
        test[f"by_{key}"] = dict(zip(groups, halves, strict=True))
    return {
        "settings": "mine",
        "seed": seed,
        "best_epoch": 4,
        "speaker_disjoint": speaker_disjoint,
        "split": "speakers" if speaker_disjoint else "random",
        "temperature": 1.25,
        "parameters": 123_456,
        "hardware": "CPU, 2 threads",
        "train_seconds": 5400,
        "split_hash": str(seed) * 64,
        "test": test,
    }


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    path = tmp_path_factory.mktemp("settings") / "mine.yaml"
    path.write_text(
        "data: {corpora: [{name: ravdess}, {name: tess}]}\nlabels: {keep: [neutral, happy, sad]}\n"
        "split: {test: [ravdess-01, tess-YAF], validation: [ravdess-02]}\n"
    )
    return load_settings(path)


def test_speakers_whom_nobody_names_are_not_called_a_random_split():
    result = run_result(3, speaker_disjoint=False)
    assert protocol_words(result) == "random split, speakers shared with training"
    column = result | {"split": "column", "speaker_disjoint": None}
    assert protocol_words(column) == "speakers not known to be unseen"
    heard = column | {"speaker_disjoint": False, "speaker_disjoint_because": "2 of these speakers were heard"}
    assert protocol_words(heard) == "speakers whom the base model had heard"
    judged = {"speaker_disjoint": False, "split": "all", "cross_validation": {"protocol": "random-5"}}
    assert protocol_words(judged) == "random split, speakers shared with training"


@pytest.fixture(scope="module")
def results() -> list[dict]:
    return [run_result(1), run_result(2, speaker_disjoint=False)]


@pytest.fixture(scope="module")
def text(settings, results) -> str:
    return model_card(settings, label_scheme(settings.labels), results)


def rows(text: str, start: str) -> list[list[str]]:
    """Cells of the table whose header begins with `start`."""
    table = text[text.index(f"| {start} |") :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_metadata_reads_back_as_the_figures_through_the_hubs_own_classes(text, results):
    data = ModelCard(text).data
    assert data.license == "cc-by-nc-sa-4.0"
    assert data.pipeline_tag == "audio-classification" and data.library_name == "transformers"
    assert data.model_name == "mine"
    read = {(e.dataset_name, e.metric_name): e for e in data.eval_results}
    assert len(read) == 4
    for result, says in zip(results, ("unseen speakers", "random split, speakers shared with training"), strict=True):
        uar = read[f"RAVDESS + TESS, {says}", "Unweighted average recall"]
        assert uar.metric_value == result["test"]["uar"]
        assert uar.metric_type == "recall" and uar.metric_args == {"average": "macro"}
        assert uar.dataset_split == "test" and uar.dataset_config == f"mine-{result['split_hash'][:12]}"
        assert read[f"RAVDESS + TESS, {says}", "Accuracy"].metric_value == result["test"]["accuracy"]


def test_table_of_emotions_is_the_confusion_matrix_counted(text, results):
    test = results[0]["test"]
    header, _, *body = rows(text, "emotion")
    assert header == ["emotion", "clips", "recall", "precision", "recall, female", "recall, male"]
    for index, (name, clips, recall, precision, female, male) in enumerate(body):
        confusion = np.array(test["confusion_matrix"])
        assert (name, clips) == (NAMES[index], str(confusion[index].sum()))
        assert float(recall) == pytest.approx(test["recall"][name], abs=6e-4)
        assert float(precision) == pytest.approx(confusion[index, index] / confusion[:, index].sum(), abs=6e-4)
        assert float(female) == pytest.approx(test["by_sex"]["female"]["recall"][name], abs=6e-4)
        assert float(male) == pytest.approx(test["by_sex"]["male"]["recall"][name], abs=6e-4)
    assert len(body) == 3


def test_every_figure_says_which_voices_it_is_about(text):
    for cells in rows(text, "test part")[2:]:
        assert "unseen speakers" in cells[0] or "speakers shared with training" in cells[0]


def test_commonest_mistake_comes_first_with_its_count(settings, results):
    result = json.loads(json.dumps(results[0]))
    result["test"]["confusion_matrix"] = [[20, 0, 0], [3, 10, 7], [0, 1, 19]]
    card = model_card(settings, label_scheme(settings.labels), [result])
    assert "Most often mistaken: happy taken for sad (7 of 20), happy taken for neutral (3 of 20), sad" in card


@pytest.mark.parametrize(
    "promised",
    [
        "RAVDESS, CC BY-NC-SA 4.0",
        "TESS, CC BY-NC-ND 4.0",
        "Code: Apache-2.0",
        "must not be used\nto judge people: not in hiring, medicine, insurance, education, policing",
        "Test: ravdess-01, tess-YAF. Validation: ravdess-02.",
        "Epoch 5 of 50 was chosen",
        "Every clip was heard as a whole, and none refused.",
        "temperature (1.25) fitted on validation",
        "Training: 50 epochs of adamw in batches of 32 clips, rate ",
        "The\npipeline answers to anything, silence and music too.",
        "training took 1.5 h on CPU, 2 threads",
        "123,456 parameters",
        "Seed 0, split 111111111111;",
        "train.py --data-dir DATA --config settings.yaml --output-dir OUT",
    ],
)
def test_card_says(text, promised):
    assert promised in text


def test_a_random_split_is_said_to_be_one(settings, results):
    card = model_card(settings, label_scheme(settings.labels), results[1:])
    assert "The split is random" in card and "No speaker of the test part" not in card


def test_weights_are_non_commercial_only_where_the_data_are(settings, results):
    free = settings.model_copy(update={"data": settings.data.model_copy(update={"corpora": [{"name": "cremad"}]})})
    data = ModelCard(model_card(free, label_scheme(free.labels), results)).data
    assert data.license == "other" and data.license_name


@pytest.mark.parametrize(
    ("temperature", "says"),
    [(19.9999, "highest, as if all were guessed"), (0.05, "lowest, as if every answer"), (1.2, "")],
)
def test_a_temperature_that_clips_could_not_tell_is_not_passed_off_as_one(settings, results, temperature, says):
    card = model_card(settings, label_scheme(settings.labels), [results[0] | {"temperature": temperature}])
    assert says in card and ("take no score at its word" in card) == bool(says)


def test_at_chance_level_the_card_does_not_say_that_of_none_ninety_in_a_hundred_are_right(settings, results):
    chance = results[0] | {"test": results[0]["test"] | {"coverage": 0.0}}
    card = model_card(settings, label_scheme(settings.labels), [chance])
    assert "Not even of its surest answers 90% are right." in card and "surest 0%" not in card
    better = results[0] | {"test": results[0]["test"] | {"coverage": 0.25}}
    assert "Of the surest 25% of the answers 90% are right" in model_card(
        settings, label_scheme(settings.labels), [better]
    )


@pytest.mark.parametrize(
    ("corpora", "base", "licence", "says"),
    [
        (["folder"], "apache-2.0", "apache-2.0", "base/model: APACHE-2.0."),
        (["folder"], None, "other", "base/model: as that model and the data above demand."),
        (["ravdess", "tess"], "cc-by-nc-sa-4.0", "cc-by-nc-sa-4.0", "base/model: CC-BY-NC-SA-4.0."),
        (["savee"], "apache-2.0", "other", "demand: APACHE-2.0; free for research after registration."),
        (["cremad"], "apache-2.0", "other", "demand: APACHE-2.0; ODbL 1.0, contents DbCL 1.0."),
        (["ravdess"], "cc-by-nc-nd-4.0", "other", "demand: CC-BY-NC-ND-4.0; CC BY-NC-SA 4.0."),
        (["folder"], "cc-by-nc-nd-4.0", "cc-by-nc-nd-4.0", "base/model: CC-BY-NC-ND-4.0."),
        (["folder"], "other", "other", "base/model: as that model and the data above demand."),
    ],
)
def test_a_tuned_models_card_keeps_to_the_licences_of_base_and_data(settings, results, corpora, base, licence, says):
    own = settings.model_copy(
        update={"data": settings.data.model_copy(update={"corpora": [{"name": c} for c in corpora]})}
    )
    result = results[0] | {"base_model": "base/model", "base_licence": base, "speaker_disjoint_because": "so it is"}
    card = model_card(own, label_scheme(own.labels), [result])
    assert ModelCard(card).data.license == licence and says in card


def test_several_licences_of_the_data_are_all_named(settings, results):
    corpora = [{"name": name} for name in ("ravdess", "tess", "cremad", "savee")]
    own = settings.model_copy(update={"data": settings.data.model_copy(update={"corpora": corpora})})
    card = model_card(own, label_scheme(own.labels), results)
    assert ModelCard(card).data.license == "other"
    assert "demand: CC BY-NC-SA 4.0; CC BY-NC-ND 4.0; ODbL 1.0, contents DbCL 1.0; free for research" in card


def test_pictures_named_in_the_card_lie_beside_it(settings, results, tmp_path):
    write_card(tmp_path, settings, label_scheme(settings.labels), results)
    named = re.findall(r"!\[[^]]+\]\(([^)]+)\)", (tmp_path / "README.md").read_text())
    assert sorted(named) == ["confusion.png", "reliability.png"]
    for name in named:
        assert Image.open(tmp_path / name).width > 300
        assert (tmp_path / name).stat().st_size < 100_000


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_card_shows_the_learning_curves_of_a_run_that_has_a_history(settings, results, tmp_path):
    epochs = [{"epoch": e, "train_loss": 2 - e / 9, "uar": e / 9, "log_loss": 2.0, "accuracy": 0.5} for e in range(9)]
    write_card(tmp_path, settings, label_scheme(settings.labels), [results[0] | {"history": epochs}])
    assert "(learning_curves.png)" in (tmp_path / "README.md").read_text()
    svg = (tmp_path / "learning_curves.svg").read_text()
    assert (
        "validation UAR" in svg and "epoch 5, whose weights" in svg and "learning rate" not in svg
    )  # which it has not


def test_pictures_of_the_same_figures_are_the_same_bytes(results, tmp_path):
    for name in ("one.png", "two.png"):
        confusion_picture(results[0]["test"]["confusion_matrix"], NAMES, tmp_path / name)
    for suffix in (".png", ".svg"):
        one, two = ((tmp_path / name).with_suffix(suffix).read_bytes() for name in ("one", "two"))
        assert one == two and b"<dc:date>" not in one


def test_confusion_picture_says_clips_and_shares(tmp_path):
    confusion_picture([[30, 10], [1, 999]], ["a", "b"], tmp_path / "c.png")
    said = re.findall(r"<text[^>]*>([^<]+)<", (tmp_path / "c.svg").read_text())
    assert said[6:] == ["30", "75 %", "10", "25 %", "1", "&lt;1 %", "999", "100 %"]


@pytest.mark.parametrize(
    ("speakers", "says"), [(4, "over 4 speakers.*fewer than 20"), (24, r"over 24 speakers[^;]*$"), (1, "one speaker")]
)
def test_an_interval_says_over_how_many_speakers_it_is(speakers, says):
    figures = dict.fromkeys(("uar", "accuracy", "f1_macro", "f1_weighted"), [0.5, 0.6])
    resampled = "speakers" if speakers > 1 else "clips"
    assert re.search(says, interval_words({"speakers": speakers, "resampled": resampled, **figures}))


def test_an_interval_names_the_corpus_whose_speakers_are_too_few():
    figures = dict.fromkeys(("uar", "accuracy", "f1_macro", "f1_weighted"), [0.5, 0.6])
    said = interval_words(
        {"speakers": 26, "speakers_of": {"ravdess": 24, "tess": 2}, "resampled": "speakers", **figures}
    )
    assert "over 26 speakers (24 of ravdess, 2 of tess, drawn apart)" in said and "of tess there are too few" in said


def test_every_condition_is_described():
    assert CONDITIONS_IN_WORDS.keys() == CONDITIONS.keys()


def test_one_corpus_has_one_row_and_another_recipe_none_in_the_index(settings, results):
    result = results[0] | {"test": results[0]["test"] | {"by_corpus": {"ravdess": results[0]["test"]}}}
    other = results[1] | {"settings": "theirs"}
    card = model_card(settings, label_scheme(settings.labels), [result, other], name="ser-mine")
    assert rows(card, "test part")[2][0] == "ravdess, unseen speakers"
    assert "| all, unseen" not in card and "| all, random split" in card and "by the recipe theirs" in card
    data = ModelCard(card).data
    assert data.model_name == "ser-mine" and len(data.eval_results) == 2  # UAR and accuracy of its own


def test_confusion_picture_is_darkest_where_the_answers_are(tmp_path):
    confusion_picture([[9, 0], [0, 9]], ["a", "b"], tmp_path / "right.png")
    confusion_picture([[0, 9], [9, 0]], ["a", "b"], tmp_path / "wrong.png")
    right, wrong = pixels(tmp_path / "right.png"), pixels(tmp_path / "wrong.png")
    dark = (right.sum(axis=2) < 250) & (right[..., 2] > right[..., 0] + 60)  # the deep blue of a full cell
    height, width = dark.shape
    assert dark[: height // 3].any() and dark[height // 2 :].any()
    assert not (dark & (wrong.sum(axis=2) < 250) & (wrong[..., 2] > wrong[..., 0] + 60)).any()
    above, below = (np.flatnonzero(half.any(axis=0)) for half in (dark[: height // 3], dark[height // 2 :]))
    assert above.mean() < below.mean()  # a is above and left, b below and right


def test_reliability_picture_shows_overconfidence_below_the_line(tmp_path):
    reliability_picture([{"count": 5, "confidence": 0.9, "accuracy": 0.2}], tmp_path / "low.png")
    reliability_picture([{"count": 5, "confidence": 0.2, "accuracy": 0.9}], tmp_path / "high.png")
    places = []
    for name in ("low.png", "high.png"):
        image = pixels(tmp_path / name)
        places.append(np.argwhere(image[..., 2] - image[..., 0] > 80).mean(axis=0) / image.shape[:2])
    (low_y, low_x), (high_y, high_x) = places
    assert low_y > 0.6 and low_x > 0.6 and high_y < 0.4 and high_x < 0.6


def test_card_command_still_reads_runs_of_before_and_reports_others_beside(tmp_path, results):
    """The figures of the checkpoint may be older than today's: no reliability, no recalls of each sex, no hardware."""
    run, other = tmp_path / "run", tmp_path / "other"
    run.mkdir(), other.mkdir()
    shutil.copy(ROOT / "configs" / "ravdess_tess_cnn.yaml", run / "settings.yaml")
    metrics = json.loads((ROOT / "checkpoints" / "ser-cnn-8" / "metrics.json").read_text())
    for key in ("hardware", "parameters", "temperature"):
        metrics.pop(key, None)
    metrics["test"].pop("reliability", None)
    for figures in metrics["test"]["by_sex"].values():
        del figures["recall"], figures["ece"]
    (run / "metrics.json").write_text(json.dumps(metrics))
    (other / "metrics.json").write_text(json.dumps(results[1]))
    assert main(["card", str(run), "--beside", str(other)]) == 0
    card = (run / "README.md").read_text()
    assert f"{metrics['test']['uar']:.3f}" in card and f"{results[1]['test']['uar']:.3f}" in card
    assert rows(card, "emotion")[0] == ["emotion", "clips", "recall", "precision"]
    assert (run / "confusion.png").exists() and not (run / "reliability.png").exists()
    assert "reliability.png" not in card


@pytest.mark.parametrize("absent", ["metrics.json", "settings.yaml"])
def test_card_command_names_what_is_missing(tmp_path, absent):
    (tmp_path / ({"metrics.json", "settings.yaml"} - {absent}).pop()).write_text('{"test": {}}')
    with pytest.raises(SystemExit, match=absent):
        main(["card", str(tmp_path)])


def test_what_is_never_recognized_is_told_of_each_corpus_and_sex():
    test = {"recall": {"happy": 0.4, "sad": 0.0}, "by_sex": {"male": {"recall": {"happy": 0.5, "sad": 0.0}}}}
    test["by_corpus"] = {"ravdess": {"recall": {"happy": 0.7, "sad": 0.0}}, "tess": {"recall": {"happy": 0.0}}}
    assert never_right(test) == ["Never recognized: sad, happy of tess.\n"]
    assert never_right({"recall": {"happy": 0.1}}) == []
