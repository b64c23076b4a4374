"""A little of `make torture`: nothing goes wrong, and what goes wrong would be told."""

import platform
import sys

import numpy as np
import pytest

from ser_model.audio import AudioError, load_audio
from torture import fuzz, inputs, security
from torture.bad_inputs import BAD_INPUTS, bytes_flipped, flips, write_all
from torture.recordings import FORMATS
from torture.report import Part


@pytest.fixture(scope="module")
def paths():
    with inputs.files(list(inputs.SHORT)) as written:
        yield written


def test_there_are_hundreds_of_bad_inputs_and_they_are_the_same_each_time(tmp_path):
    assert len(BAD_INPUTS) > 200
    names = list(inputs.SHORT)
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        write_all(folder, names)
    for name in names:
        one, two = ((tmp_path / folder / name).read_bytes() for folder in ("one", "two"))
        assert len(one) == len(two)
        assert sum(a != b for a, b in zip(one, two, strict=True)) <= 16  # some carry the hour of their making


def test_flips_are_seeded_and_reach_every_codec():
    first, again = ([data for _, data in flips(2 * len(FORMATS))] for _ in range(2))
    assert sum(one == two for one, two in zip(first, again, strict=True)) >= len(FORMATS)  # but for those hours
    wav = FORMATS["wav"]()
    flipped = bytes_flipped(wav, np.random.default_rng(0), flips=1)
    assert sum(one != two for one, two in zip(wav, flipped, strict=True)) == 1


def test_turned_bits_end_in_sound_or_a_sentence():
    assert inputs.through_the_decoder(200).problems == []


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="atheris has wheels for Linux on x86-64 alone"
)
def test_a_fuzzer_finds_its_way_into_the_decoder_and_no_fault():
    part = fuzz.run(runs=300)
    assert part.problems == []
    assert int(dict(part.rows)["inputs that reached something new"]) > 0


def test_the_extractor_takes_any_array_or_says_why_not():
    assert inputs.through_the_extractor().problems == []


def test_the_command_line_answers_every_file(paths):
    part = inputs.through_the_command_line(paths)
    assert part.problems == []
    assert dict(part.rows)["files"] == str(len(paths) + 1)


def test_the_trainer_leaves_bad_files_out_with_a_reason(paths):
    part = inputs.through_the_trainer(paths)
    assert part.problems == []
    assert int(dict(part.rows)["left out, each with its reason"]) >= len(paths) // 2


def test_the_page_answers_every_file(paths):
    part = inputs.through_the_api(paths)
    assert part.problems == []
    assert dict(part.rows)["files"] == str(len(paths))


def test_a_stranger_gets_nothing_of_the_server_and_a_word_for_every_call():
    [part] = security.run()
    assert part.problems == []
    assert dict(part.rows)["requests that the server made for somebody"] == "0"


def test_what_goes_wrong_is_told(monkeypatch):
    def careless(data):
        try:
            return load_audio(data)
        except AudioError:
            return np.array([np.nan])

    monkeypatch.setattr(inputs, "load_audio", careless)
    part = inputs.through_the_decoder(60)
    assert "samples that are no numbers were let through" in part.problems
    assert "| **wrong** | samples that are no numbers" in part.markdown()
    assert "| wrong | nothing |" in Part("a title", []).markdown()
