"""A live microphone: chunks of any size at any rate, answers in time, and nothing left after a reset."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ser_model.audio import AudioError, resample
from ser_model.inference import NO_VOICE, TOO_QUIET, VOICE, WINDOW_S, EmotionRecognizer
from ser_model.streaming import TRACK_S, UPDATE_S, LiveRecognizer

CHECKPOINT = Path(__file__).resolve().parent.parent / "checkpoints" / "ser-cnn-8"
RATE = 48_000  # of a browser's microphone


@pytest.fixture(scope="module")
def recognizer():
    return EmotionRecognizer.from_pretrained(CHECKPOINT)


@pytest.fixture(scope="module")
def voice(data_dir):
    """int16 (T,) at RATE, 4.4 s of an actor."""
    samples, rate = soundfile.read(data_dir / "native_samples" / "03-01-06-01-01-02-20.wav", dtype="int16")
    assert rate == RATE
    return samples if samples.ndim == 1 else samples[:, 0].copy()


def live_recognizer(recognizer):
    return LiveRecognizer(recognizer.recognize, recognizer.sampling_rate)


def listened(live, sound, chunk=4800, rate=RATE):
    answers = [live.push(rate, sound[start : start + chunk]) for start in range(0, len(sound), chunk)]
    return [answer for answer in answers if answer is not None]


def test_answers_come_at_least_twice_a_second_and_follow_the_voice(recognizer, voice):
    answers = listened(live_recognizer(recognizer), voice)
    times_s = np.array([answer.heard_s for answer in answers])
    assert times_s[0] < 0.75 and np.diff(times_s).max() <= 0.5
    last = answers[-1].prediction
    assert last.status == VOICE and sum(last.scores.values()) == pytest.approx(1, abs=1e-5)
    assert last.label == next(iter(last.scores)) and last.confidence == max(last.scores.values())
    assert [window.end_s for window in answers[-1].track] == sorted(window.end_s for window in answers[-1].track)


def test_a_function_needs_a_rate(recognizer):
    with pytest.raises(ValueError, match="does not tell its sampling rate; give window_hz"):
        LiveRecognizer(recognizer.recognize)


def test_a_recognizer_is_enough(recognizer, voice):
    [first, *_] = listened(LiveRecognizer(recognizer), voice[:RATE])
    assert first.prediction == listened(live_recognizer(recognizer), voice[:RATE])[0].prediction


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
@pytest.mark.parametrize("chunk", [1000, 4801])
def test_what_is_judged_is_the_sound_whatever_the_chunks(recognizer, voice, rate, chunk):
    """No click and no gap where two chunks meet: the window holds what resampling the whole gives."""
    sound = resample(voice / 2**15, RATE, rate)
    windows = []
    live = LiveRecognizer(lambda clips: windows.append(clips[0]) or recognizer.recognize(clips), 16_000)
    answers = listened(live, sound, chunk, rate)
    whole = resample(sound, rate, 16_000)
    end = round(answers[-1].heard_s * 16_000)
    window = windows[-1]
    np.testing.assert_allclose(window, whole[max(0, end - len(window)) : end], atol=1e-5)
    assert len(sound) / rate - answers[-1].heard_s < UPDATE_S + 0.1


def test_a_smoothed_answer_moves_slower_than_the_newest(recognizer, voice):
    newest = []
    live = LiveRecognizer(lambda clips: newest.extend(recognizer.recognize(clips)) or newest[-1:], 16_000)
    smooth = [answer.prediction for answer in listened(live, np.tile(voice, 2))]
    pairs = [(new.scores, old.scores) for new, old in zip(newest, smooth, strict=True) if new.status == VOICE]

    def movement(scores):
        return sum(abs(after["angry"] - before["angry"]) for before, after in pairwise(scores))

    assert movement([smoothed for _, smoothed in pairs]) < movement([fresh for fresh, _ in pairs])


def test_silence_and_noise_get_no_emotion(recognizer, voice):
    live = live_recognizer(recognizer)
    assert {answer.prediction.status for answer in listened(live, np.zeros(2 * RATE, np.int16))} == {TOO_QUIET}
    noise = (3000 * np.random.default_rng(0).standard_normal(3 * RATE)).astype(np.int16)
    assert {answer.prediction.status for answer in listened(live, noise)} == {NO_VOICE}
    assert listened(live, voice)[-1].prediction.status == VOICE
    quiet = listened(live, np.zeros(5 * RATE, np.int16))[-1]
    assert quiet.prediction.label is None and quiet.track, "the picture still shows what was said"


def test_memory_does_not_grow_with_time(recognizer, voice):
    """Half an hour at once, of which the recogniser itself is not the question."""
    answers = recognizer.recognize([resample(voice / 2**15, RATE, 16_000)])
    live = LiveRecognizer(lambda clips: answers, 16_000)
    held = []
    for _ in range(400):
        listened(live, voice, chunk=RATE)
        held.append(len(live._window) + len(live._track))
    assert max(held) <= WINDOW_S * 16_000 + TRACK_S / UPDATE_S


def test_after_a_reset_nothing_is_left(recognizer, voice):
    live = live_recognizer(recognizer)
    first = listened(live, voice)
    live.reset()
    again = listened(live, voice)
    assert again == first


def test_another_microphone_starts_anew(recognizer, voice):
    live = live_recognizer(recognizer)
    listened(live, voice)
    answers = listened(live, resample(voice / 2**15, RATE, 16_000), 1600, 16_000)
    assert answers[0].heard_s < 1


def test_odd_chunks(recognizer):
    live = live_recognizer(recognizer)
    assert live.push(RATE, np.zeros(0, np.int16)) is None
    assert live.push(RATE, np.zeros((100, 2), np.int16)) is None
    for rate in (10, 0, -1, None):
        with pytest.raises(AudioError, match="sampling rate"):
            live.push(rate, np.zeros(100, np.int16))
    with pytest.raises(AudioError, match="peak at 30000"):
        live.push(RATE, np.full(100, 3e4, np.float32))
    heard_s = live.push(RATE, np.zeros(RATE, np.int16)).heard_s
    assert heard_s == pytest.approx(1, abs=0.02)  # what was refused is not in it
