import csv
import math
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from unittest.mock import Mock

import matplotlib.image
import pytest
import soundfile
import yaml

from ser_model import SERFeatureExtractor
from ser_model.__main__ import main
from ser_model.corpora.base import Utterance
from ser_model.explore import findings as findings_module
from ser_model.explore.clips import alone_in, describe
from ser_model.explore.findings import Clip, covering_length_s, covering_rate, example_clips, features_at, look
from ser_model.explore.overview import overview_sections
from ser_model.explore.page import Picture, Section, Table, render
from ser_model.inspection import Sound
from ser_model.settings import AugmentationSettings, load_settings

CONFIG = {
    "name": "mine",
    "data": {"corpora": [{"name": "ravdess"}, {"name": "tess"}]},
    "labels": {"base": 7, "drop": ["disgust"]},
    "split": {"kind": "speakers", "test": ["ravdess-01", "tess-YAF"], "validation": ["ravdess-02"]},
}
EVIL = '<script>alert("x")</script>'
VOID = {"meta", "link", "br", "img", "input", "hr", "path", "use", "image", "rect"}


class Page(HTMLParser):
    """Start tags with their attributes, text, and whether every tag is closed where it should be."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags, self.open, self.words = [], [], []
        self.feed(path.read_text("utf-8"))
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert tag in VOID or self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)


def explored(data_dir: Path, config: dict, output: Path) -> Path:
    path = output.parent / f"{output.name}.yaml"
    path.write_text(yaml.safe_dump(config))
    assert main(["explore", "--config", str(path), "--data-dir", str(data_dir), "--output", str(output)]) == 0
    return output


def table(folder: Path, name: str) -> list[dict]:
    with open(folder / f"{name}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def sound(duration_s=1.0, sampling_rate=16_000, content="", problem=None) -> Sound:
    return Sound(duration_s, sampling_rate, 1, 0.5, -20.0, content, problem)


def clip(emotion="sad", speaker="a", text=None, **facts) -> Clip:
    said = Utterance(Path(f"{speaker}-{emotion}-{text}.wav"), "made", speaker, None, emotion, "take", text=text)
    return Clip(said, sound(**facts), emotion)


@pytest.fixture(scope="module")
def damaged_corpora(synthetic_corpora, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("damaged") / "data"
    shutil.copytree(synthetic_corpora, root)
    (root / "RAVDESS" / "Actor_03" / "03-01-05-02-01-01-03.wav").write_bytes(b"RIFF no sound at all")
    (root / "TESS" / "OAF_sad" / "notes & <remarks>.wav").write_bytes(b"")
    return root


@pytest.fixture(scope="module")
def folder(damaged_corpora, tmp_path_factory) -> Path:
    return explored(damaged_corpora, CONFIG, tmp_path_factory.mktemp("explore") / "out")


@pytest.fixture(scope="module")
def page(folder) -> Page:
    return Page(folder / "index.html")


def test_page_is_whole_and_needs_nothing_from_elsewhere(folder, page):
    assert not page.open
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "iframe", "img", "object"}
        for key in ("src", "href", "xlink:href", "poster", "action"):
            assert attributes.get(key, "#").startswith(("#", "data:")), (tag, attributes[key][:100])
    text = (folder / "index.html").read_text("utf-8")
    assert not re.search(r"@import|url\((?!['\"]?#)", text)
    assert "/tmp/" not in text and str(folder) not in text


def test_every_picture_has_a_description_and_a_file_that_is_not_blank(folder, page):
    described = [attributes["aria-label"] for tag, attributes in page.tags if attributes.get("role") == "img"]
    files = sorted(folder.glob("*.png"))
    assert len(described) == len(files) == sum(tag == "svg" for tag, _ in page.tags)
    assert all(len(text) > 20 for text in described)
    for path in files:
        assert matplotlib.image.imread(path)[..., :3].std() > 0.05, path.name


def test_every_table_has_headings(page):
    tags = Counter(tag for tag, _ in page.tags)
    assert tags["table"] == tags["thead"] == tags["caption"] > 5
    assert all(attributes.get("scope") == "col" for tag, attributes in page.tags if tag == "th")


def test_counts_are_those_of_the_files(folder):
    counts = {(row["by"], row["name"]): row for row in table(folder, "counts")}
    # 8 actors x 8 emotions x 2 takes and 2 actresses x 7 emotions x 3 words, without disgust
    assert counts["corpus", "ravdess"]["clips"] == str(8 * 7 * 2)
    assert counts["corpus", "tess"]["clips"] == str(2 * 6 * 3)
    assert counts["label", "neutral"]["clips"] == str(8 * 2 * 2 + 2 * 3)
    assert counts["emotion", "calm"]["clips"] == str(8 * 2)
    assert counts["sex", "male"]["clips"] == str(4 * 7 * 2)
    assert counts["sex", "female"]["speakers"] == "6"
    assert ("label", "calm") not in counts and ("label", "disgust") not in counts
    assert len(table(folder, "clips")) == 8 * 7 * 2 + 2 * 6 * 3


def test_emotions_tell_what_the_scheme_makes_of_them(folder):
    rows = {row["emotion"]: row for row in table(folder, "emotions")}
    assert rows["calm"] == {"emotion": "calm", "label": "neutral", "ravdess": "16", "tess": "0", "all": "16"}
    assert rows["disgust"] == {"emotion": "disgust", "label": "left out", "ravdess": "16", "tess": "6", "all": "22"}


def test_speakers_and_parts_add_up(folder):
    speakers = {row["speaker"]: row for row in table(folder, "speakers")}
    assert len(speakers) == 10
    assert speakers["ravdess-05"]["happy"] == "2" and speakers["tess-OAF"]["happy"] == "3"
    parts = {row["part"]: row for row in table(folder, "split")}
    assert parts["test"]["clips"] == str(7 * 2 + 6 * 3) and parts["test"]["speakers"] == "2"
    assert parts["validation"]["clips"] == str(7 * 2)
    assert parts["train"]["neutral"] == str(6 * 2 * 2 + 3)


def test_lengths_cover_the_share_that_they_say(folder, synthetic_corpora):
    used = [synthetic_corpora / row["path"] for row in table(folder, "clips")]
    lengths_s = sorted(soundfile.info(path).duration for path in used)
    for row, share in zip(table(folder, "coverage"), (0.80, 0.95), strict=True):
        length_s = lengths_s[math.ceil(share * len(lengths_s)) - 1]
        assert float(row["length in s"]) == round(length_s, 2)
        assert int(row["max_frames"]) == int(length_s * 16_000) // 320 + 1
        assert row["rate in Hz"] == "16000"


def test_suggested_lines_are_accepted_by_the_settings(page, tmp_path):
    code = next(words for words in page.words if "max_frames:" in words)
    suggestions = re.split(r"^# \d+ % of the clips$", code, flags=re.MULTILINE)
    assert len(suggestions) == 3 and not suggestions[0]
    for text in suggestions[1:]:
        path = tmp_path / "with_lines.yaml"
        path.write_text(f"{yaml.safe_dump(CONFIG)}\n{text}")
        settings = load_settings(path)
        assert settings.training.max_frames > 8
        assert SERFeatureExtractor(**settings.features).sampling_rate == 16_000


@pytest.mark.parametrize(
    "features",
    [
        {},
        {"n_mfcc": 40, "n_mels": 128, "n_fft": 2048},
        {"f_max": 5000.0},
        {"features": ["mfcc", "chroma", "contrast"]},
        {"features": ["mfcc", "pitch"], "pitch_f_max": 3500.0},
    ],
)
@pytest.mark.parametrize("rate", [6_000, 8_000, 16_000, 24_414, 48_000, 96_000])
def test_features_for_any_rate_are_accepted(features, rate):
    extractor = SERFeatureExtractor(**{**features, **features_at(features, rate)})
    assert extractor.sampling_rate == rate
    assert extractor.f_max == min(features.get("f_max", rate / 2), rate / 2)
    assert extractor.pitch_f_max == min(features.get("pitch_f_max", 550.0), rate / 2)
    octaves = {6_000: 4, 8_000: 5}.get(rate, 6)  # from 200 Hz on, the last begins at 1600, 3200 or 6400 Hz
    assert extractor.contrast_n_bands == (octaves if "contrast" in extractor.features else 6)


def test_coverage_of_a_few_clips():
    clips = [clip(duration_s=seconds, sampling_rate=rate) for seconds, rate in zip(range(1, 6), (8, 16, 16, 48, 48))]  # noqa: B905
    assert covering_length_s(clips, 0.8) == 4  # four of five are no longer
    assert covering_rate(clips, 0.8) == 16  # four of five reach it
    assert (covering_length_s(clips, 0.95), covering_rate(clips, 0.95)) == (5, 8)


def test_what_was_left_out_is_listed_with_the_reason(folder, page):
    rows = {row["path"]: row for row in table(folder, "left_out")}
    assert len(rows) == 2
    damaged = rows["RAVDESS/Actor_03/03-01-05-02-01-01-03.wav"]
    assert damaged["corpus"] == "ravdess" and damaged["reason"].startswith("unreadable: ")
    misnamed = rows["TESS/OAF_sad/notes & <remarks>.wav"]
    assert misnamed["corpus"] == "tess" and misnamed["reason"].startswith("badly named: ")
    assert all(row["reason"] in page.text for row in rows.values())
    assert "notes & <remarks>.wav" in page.text  # as text, not as a tag
    assert "22 clips have an emotion that the label scheme drops" in page.text


def test_of_many_files_left_out_the_page_lists_twenty(tmp_path):
    problems = Table("left_out", "Left out", ["path"], [[f"clip {number}"] for number in range(100)], shown=20)
    problems.write(tmp_path)
    assert len(table(tmp_path, "left_out")) == 100
    page = render("mine", {}, [Section("Left out", tables=[problems])])
    assert "clip 19<" in page and "clip 20<" not in page
    assert "The first 20 of 100; all are in left_out.csv." in page


def test_names_of_ones_own_are_escaped(synthetic_corpora, tmp_path):
    clips = sorted((synthetic_corpora / "TESS" / "OAF_sad").iterdir())
    rows = [f'"{path}","{label}"' for path, label in zip(clips, (EVIL.replace('"', '""'), "a & b", "$x$"), strict=True)]
    (tmp_path / "mine.csv").write_text("\n".join(["path,label", *rows]))
    data = {"corpora": [{"name": "folder", "path": "mine.csv", "corpus": "<i>mine</i>"}]}
    config = {"name": "<b>bold", "data": data, "labels": {"names": [EVIL, "a & b", "$x$"]}}
    folder = explored(tmp_path, config, tmp_path / "out")
    page = Page(folder / "index.html")
    assert not page.open
    assert not {"script", "i", "b"} & {tag for tag, _ in page.tags}
    for name in (EVIL, "a & b", "$x$", "<i>mine</i>", "<b>bold"):
        assert name in page.text
    assert "cannot be made" in page.text and "name no speaker" in page.text


@pytest.mark.parametrize(("more", "taken"), [([], 3), (["--num-proc=2"], 2)])
def test_it_takes_as_many_processes_as_the_config_or_the_option_says(more, taken, tmp_path, monkeypatch):
    (tmp_path / "c.yaml").write_text("data: {corpora: [{name: ravdess}], num_proc: 3}\n")
    monkeypatch.setattr("ser_model.explore.explore", called := Mock())
    main(["explore", f"--config={tmp_path / 'c.yaml'}", f"--data-dir={tmp_path}", f"--output={tmp_path}", *more])
    assert called.call_args.kwargs["num_proc"] == taken


def test_an_unknown_corpus_ends_with_a_message(tmp_path):
    (tmp_path / "c.yaml").write_text("data: {corpora: [{name: ravdes}]}\n")
    with pytest.raises(SystemExit, match="did you mean 'ravdess'"):
        main(["explore", "--config", str(tmp_path / "c.yaml"), "--data-dir", str(tmp_path), "--output", str(tmp_path)])


def test_every_augmentation_has_its_picture(folder):
    shown = {path.stem.removeprefix("augmentation_") for path in folder.glob("augmentation_*.png")}
    assert shown == {"none", *AugmentationSettings.model_fields}


def test_one_augmentation_is_left_on():
    settings = AugmentationSettings.model_validate({"noise": {"probability": 0.1, "snr_db": (1.0, 2.0)}})
    alone = alone_in(settings, "noise")
    on = {name: getattr(alone, name).probability for name in AugmentationSettings.model_fields}
    assert {name: probability for name, probability in on.items() if probability} == {"noise": 1.0}
    assert alone.noise.snr_db == (1.0, 2.0)
    assert describe(settings, "noise") == "noise (probability 0.1): snr_db 1 to 2, slope 0 to 1"
    assert describe(settings, "codec") == "codec (off): kbit_s 16 to 64"


def test_examples_are_of_one_voice_and_sentence_where_there_is_one():
    clips = [clip("sad", "a", "one"), clip("calm", "a", "two"), clip("happy", "b", "one"), clip("sad", "b", "two")]
    clips += [clip("angry", "b", "two"), clip("calm", "c", "two")]
    chosen = example_clips(clips)
    assert list(chosen) == ["calm", "happy", "sad", "angry"]
    assert (chosen["sad"], chosen["angry"]) == (clips[3], clips[4])  # b says "two" in most emotions
    assert chosen["happy"] == clips[2]  # the same voice, another sentence
    assert chosen["calm"] == clips[1]


def test_real_corpora_are_counted_as_published(data_dir, monkeypatch):
    def as_if_inspected(paths, **_):
        return [sound(content=str(path)) for path in paths]

    monkeypatch.setattr(findings_module, "inspect_files", as_if_inspected)
    settings = load_settings(Path(__file__).parent.parent / "configs" / "ravdess_tess_cnn.yaml")
    sections = overview_sections(look(settings, data_dir), lambda *_: Picture("", "", ""))
    rows = next(each for section in sections for each in section.tables if each.name == "counts").rows
    assert {row[1]: row[2] for row in rows if row[0] == "corpus"} == {"ravdess": 1440, "tess": 2798}
