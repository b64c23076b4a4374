"""Fixtures that several test files share."""

import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import serving
import soundfile
import torch

ROOT = Path(__file__).resolve().parent.parent

torch.set_num_threads(1)  # on a busy machine two threads that wait for each other are far slower than one
os.environ["OMP_NUM_THREADS"] = os.environ["LOKY_MAX_CPU_COUNT"] = "1"  # nor have the commands more that they start
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing in the tests may depend on the Hub
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # some import ONNX Runtime before our package


def program(*names: str) -> str:
    """Where a program of the system lies, under the first name that is found. In CI it must be there."""
    if found := [path for path in map(shutil.which, names) if path]:
        return found[0]
    message = f"this test needs the program {names[0]}; on Debian: apt-get install {names[0]}"
    pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)


@pytest.fixture(scope="session", autouse=True)
def cache_of_their_own(tmp_path_factory) -> None:
    """Tests, and what they start, neither fill nor trust the user's cache of decoded audio."""
    os.environ["SER_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The real corpora: `SER_DATA_DIR`, else ../shared/data. In CI they must be there."""
    path = Path(os.environ.get("SER_DATA_DIR", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        message = f"no corpora at {path}; set SER_DATA_DIR to a folder that holds RAVDESS and TESS"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return path


def write_chord(path: Path, emotion: int, pitch_hz: float, rng: np.random.Generator) -> None:
    """A chord for each emotion, a pitch for each voice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time_s = np.arange(int(16_000 * rng.uniform(0.7, 1.0))) / 16_000
    overtone_hz = 600 * 1.25**emotion
    sound = np.sin(2 * np.pi * pitch_hz * time_s) + np.sin(2 * np.pi * overtone_hz * time_s)
    soundfile.write(path, 0.2 * sound + rng.normal(0, 0.005, len(sound)), 16_000, subtype="PCM_16")


def write_ravdess(root: Path, actors: int, takes: int, rng: np.random.Generator) -> None:
    """RAVDESS speech as it is named: eight emotions of each actor, up to four takes: two of a sentence."""
    for actor in range(1, actors + 1):
        for emotion in range(8):
            for take in range(1, takes + 1):
                sentence, repetition = 1 + (take - 1) // 2, 1 + (take - 1) % 2
                name = f"03-01-{emotion + 1:02}-01-{sentence:02}-{repetition:02}-{actor:02}.wav"
                write_chord(root / "RAVDESS" / f"Actor_{actor:02}" / name, emotion, 100 + 20 * actor, rng)


@pytest.fixture(scope="session")
def all_synthetic_actors(tmp_path_factory) -> Path:
    """All 24 actors of RAVDESS, one made clip of each emotion."""
    root = tmp_path_factory.mktemp("actors")
    write_ravdess(root, actors=24, takes=1, rng=np.random.default_rng(0))
    return root


@pytest.fixture(scope="session")
def synthetic_corpora(tmp_path_factory) -> Path:
    """RAVDESS and TESS as they are named, with made sounds."""
    root = tmp_path_factory.mktemp("corpora")
    rng = np.random.default_rng(0)
    write_ravdess(root, actors=8, takes=2, rng=rng)
    tess_emotions = {"neutral": 0, "happy": 2, "sad": 3, "angry": 4, "fear": 5, "disgust": 6, "ps": 7}
    for speaker, pitch_hz in (("OAF", 180), ("YAF", 220)):
        for emotion, index in tess_emotions.items():
            folder = "pleasant_surprise" if emotion == "ps" else emotion
            for word in ("back", "bean", "chair"):
                clip = root / "TESS" / f"{speaker}_{folder}" / f"{speaker}_{word}_{emotion}.wav"
                write_chord(clip, index, pitch_hz, rng)
    return root


# ── The page: a server and a browser a test file, a visitor a test ──


@pytest.fixture(scope="session")
def clips(data_dir, tmp_path_factory) -> Path:
    """A folder of recordings: one real clip in many formats, a long one, and some that cannot be judged."""
    folder = tmp_path_factory.mktemp("clips")
    samples, rate = soundfile.read(data_dir / "native_samples" / "03-01-06-01-01-02-20.wav", always_2d=True)
    voice = samples.mean(axis=1)
    soundfile.write(folder / "clip.wav", voice, rate)
    for name, codec, rate_hz in [
        ("clip.m4a", "aac", 44_100),
        ("clip.mp4", "aac", 44_100),
        ("clip.webm", "libopus", 48_000),
        ("clip.amr", "libopencore_amrnb", 8_000),
    ]:
        serving.encode(folder / name, codec, rate_hz, voice, rate)
    soundfile.write(folder / "long.wav", np.concatenate([voice, voice, np.zeros(8 * rate), voice]), rate)
    soundfile.write(folder / "silence.wav", np.zeros(2 * rate), rate)
    soundfile.write(folder / "tone.wav", 0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate), rate)
    soundfile.write(folder / "short.wav", voice[: round(0.2 * rate)], rate)
    soundfile.write(folder / "unscaled.wav", voice / np.abs(voice).max() * 32_767, rate, subtype="FLOAT")
    (folder / "text.wav").write_text("This is no recording.")
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of `python app.py`, started as a visitor's host would; for other settings, define another."""
    with serving.running_app(tmp_path_factory.mktemp("server")) as url:
        yield url


@pytest.fixture(scope="module")
def browser(clips):
    """Not for the whole session: while Playwright runs, nothing else in this thread can use asyncio."""
    with serving.running_browser(program(*serving.CHROMIUM), microphone=clips / "clip.wav") as browser:
        yield browser


@pytest.fixture
def page(browser, server):
    """A fresh visitor whose browser speaks English."""
    with serving.visit(browser, server) as page:
        yield page


@pytest.fixture(scope="session")
def encoder(tmp_path_factory) -> Path:
    """A stand-in for a pretrained one: sound (1, T) -> normed random features (1, L, 8), one each 10 ms."""
    file = tmp_path_factory.mktemp("encoder") / "encoder.onnx"
    kernels = np.random.default_rng(0).normal(size=(8, 1, 160)).astype(np.float32)
    nodes = [
        onnx.helper.make_node("Unsqueeze", ["input_values", "axis"], ["sound"]),
        onnx.helper.make_node("Conv", ["sound", "kernels"], ["features"], strides=[160]),
        onnx.helper.make_node("Abs", ["features"], ["levels"]),
        onnx.helper.make_node("Transpose", ["levels"], ["frames"], perm=[0, 2, 1]),
        onnx.helper.make_node("LayerNormalization", ["frames", "scale"], ["normed"]),
    ]
    value = onnx.helper.make_tensor_value_info
    inputs = [value("input_values", 1, [1, "time"]), value("attention_mask", 7, [1, "time"])]
    constants = {"kernels": kernels, "axis": np.array([1]), "scale": np.ones(8, np.float32)}
    known = [onnx.numpy_helper.from_array(constant, name) for name, constant in constants.items()]
    graph = onnx.helper.make_graph(nodes, "encoder", inputs, [value("normed", 1, [1, "frame", 8])], known)
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), file)
    return file
