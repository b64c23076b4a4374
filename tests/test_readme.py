"""What README.md and the guides of docs/ tell people to type, typed."""

import contextlib
import csv
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
import soundfile
import yaml
from fake_hub import OURS, TOKEN, running_hub
from serving import free_port, wait_until_it_answers

from ser_model.__main__ import main
from ser_model.labels import EMOTIONS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
LIMITS = (ROOT / "docs" / "limits.md").read_text()
GUIDES = README + "".join((ROOT / "docs" / f"{name}.md").read_text() for name in ("serving", "developers", "training"))
SNIPPETS = re.findall(r"^```python\n(.*?)^```", GUIDES, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"^```bash\n(.*?)^```", GUIDES, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
ENVIRONMENT = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
# `make test` is what runs this file in continuous integration; the others are run below or where it says.
TESTED = {
    "make demo": "test_make_demo_serves_the_page",
    "make test": ".ci/run",
    "make results": "tests/test_results.py",
    "make reproduce": "tests/test_results.py",
    "python -m ser_model predict": "test_predict_command",
    "python -m ser_model timeline": "test_timeline_command",
    "python -m ser_model download": "tests/test_download.py, from a server of its own",
    "accelerate launch train.py --config configs/ravdess_speakers.yaml": "tests/test_crossvalidation.py",
    "accelerate launch train.py": "test_training_command, test_own_labels_are_learnt_and_predicted",
    "python -m ser_model explore": "test_explore_command",
    "python -m ser_model evaluate": "test_evaluate_command_says_whom_the_model_has_heard",
    "python -m ser_model export": "test_python_snippet",
    "python -m ser_model draw": "test_draw_command",
    "python -m ser_model join": "tests/test_joining.py",
    "python -m ser_model halve": "tests/test_joining.py",
    "python -m ser_model push": "test_push_command",
    "hf upload": "test_space_command",
}
EMOTION = re.compile("|".join(EMOTIONS))


def command(start: str) -> str:
    return next(line for line in COMMANDS if line.startswith(start))


def run(line: str, **options) -> subprocess.CompletedProcess:
    options = {"env": ENVIRONMENT, "capture_output": True, "text": True, "timeout": 300} | options
    return subprocess.run(line, shell=True, **options)


def typed(line: str, folder: Path) -> None:
    """The same for `python -m ser_model`, in this process, which has loaded everything."""
    with contextlib.chdir(folder):
        assert main(shlex.split(line.removeprefix("python -m ser_model "))) == 0


def test_every_command_is_run_by_a_test():
    assert [line for line in COMMANDS if not line.startswith(tuple(TESTED))] == []


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """Where the commands are typed: a folder that looks like this one, and takes what they write."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("checkpoints", "configs", "examples", "ser_model"):
        (folder / name).symlink_to(ROOT / name)
    typed(command("python -m ser_model export"), folder)
    return folder


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.splitlines()[-1][:40])
def test_python_snippet(snippet, checkout, tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", snippet],
        cwd=checkout,
        env=ENVIRONMENT | {"HF_MODULES_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    _, _, promised = snippet.splitlines()[-1].partition("  # ")
    assert promised in result.stdout if promised else EMOTION.search(result.stdout)


def test_snippet_of_a_card(tmp_path):
    folder = ROOT / "checkpoints" / "ser-cnn-8"
    [snippet] = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    voice, rate = soundfile.read(ROOT / "examples" / "synthetic_lively_voice.flac")
    soundfile.write(tmp_path / "voice.wav", voice, rate)
    command = [sys.executable, "-c", snippet.replace("PATH_OR_HUB_ID", str(folder))]
    environment = ENVIRONMENT | {"HF_MODULES_CACHE": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert EMOTION.search(done.stdout), done.stderr


def test_draw_command(checkout):
    typed(command("python -m ser_model draw"), checkout)
    assert "parameters, 8 labels" in (checkout / "net.svg").read_text()


def test_push_command(checkout, tmp_path):
    line = command("python -m ser_model push").replace("runs/mine", "checkpoints/ser-cnn-8")
    with running_hub() as hub:
        endpoint = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
        done = run(line.replace("your-name", OURS), cwd=checkout, env=ENVIRONMENT | endpoint)
        assert done.returncode == 0, done.stderr
        assert "model.safetensors" in hub.repositories[f"{OURS}/ser-cnn"].files


def test_space_command(tmp_path):
    """The Hub reads the card of a Space; what is built or recorded here stays here."""
    folder = tmp_path / "checkout"
    for name in ("app.py", "docs/page.png", "checkpoints/a/b", ".venv/a/b", "runs/a/b", "data/a/b"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"content")
    (folder / "README.md").write_text(README, encoding="utf-8")
    with running_hub() as hub:
        endpoint = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
        done = run(command("hf upload").replace("your-name", OURS), cwd=folder, env=ENVIRONMENT | endpoint)
        assert done.returncode == 0, done.stderr
        files = hub.repositories[f"{OURS}/voices"].files.keys() - {".gitattributes"}
        assert files == {"README.md", "app.py", "docs/page.png", "checkpoints/a/b"}


def test_predict_command(tmp_path):
    line = command("python -m ser_model predict")
    result = run(line.replace("predictions.csv", str(tmp_path / "predictions.csv")), cwd=ROOT)
    assert result.returncode == 0, result.stderr
    with open(tmp_path / "predictions.csv", newline="") as file:
        rows = {Path(row["path"]).stem: row for row in csv.DictReader(file)}
    assert rows.keys() == {file.stem for file in (ROOT / "examples").glob("*.flac")}
    assert all(row["label"] and not row["error"] for row in rows.values())


def test_timeline_command(tmp_path, capsys):
    line = command("python -m ser_model timeline").replace("timelines", str(tmp_path / "timelines"))
    typed(line, ROOT)
    said = capsys.readouterr().out
    for example in (ROOT / "examples").glob("*.flac"):
        kinds = {file.suffix: file.read_text() for file in (tmp_path / "timelines").glob(f"{example.stem}.*")}
        assert kinds.keys() == {".csv", ".json", ".srt"}
        count = len(list(csv.DictReader(kinds[".csv"].splitlines())))
        assert count == kinds[".srt"].count("-->") == len(json.loads(kinds[".json"])["segments"]) > 0
        assert f"{example.name}: {count} segments" in said


def test_evaluate_command_says_whom_the_model_has_heard(data_dir):
    line = command("python -m ser_model evaluate")
    result = run(line.replace("--data-dir data", f"--data-dir {data_dir}"), cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("NOT unseen speakers: ")
    assert re.search(r"uar [01]\.\d+, accuracy [01]\.\d+", result.stdout)


def test_figures_are_those_of_the_card():
    test = json.loads((ROOT / "checkpoints" / "ser-cnn-8" / "metrics.json").read_text())["test"]
    low, high = test["interval"]["uar"]
    whole = f"{test['uar']:.3f} | {low:.3f} to {high:.3f} | {test['accuracy']:.3f} | {test['ece']:.3f}"
    assert f"| both together | {whole} |" in README
    for corpus in test["by_corpus"].values():
        low, high = corpus["interval"]["uar"]
        interval, last = rf"{low:.3f} (to|and) {high:.3f}", f"{corpus['accuracy']:.3f} \\| {corpus['ece']:.3f}"
        row = rf"\({corpus['count']} clips\) \| {corpus['uar']:.3f} \|.* {interval} \| {last} \|"
        assert re.search(row, README)
    uar = {group: f"{own['uar']:.3f}" for key in ("sex", "intensity") for group, own in test[f"by_{key}"].items()}
    told = "of RAVDESS a UAR of {ravdess male} and {ravdess female}, of {ravdess normal} and {ravdess strong}"
    assert told.format_map(uar) in README
    low, high = (100 * end(test["overconfidence_of_runs"]) for end in (min, max))
    assert f"between {-low:.0f} points below its accuracy and {high:.0f} above" in LIMITS
    assert test["by_corpus"]["tess"]["recall"]["happy"] == 0 and "happy, which it never recognizes there" in README


def test_what_worse_conditions_cost_is_what_the_card_says():
    metrics = json.loads((ROOT / "checkpoints" / "ser-cnn-8" / "metrics.json").read_text())
    lost = {name: f"{100 * (metrics['test']['uar'] - uar):.1f}" for name, uar in metrics["conditions"].items()}
    said = re.findall(r"\d+\.\d", README.partition("Under worse conditions")[2].partition("\n\n")[0])
    named = ("telephone", "small_room", "noise_20db", "noise_10db", "noise_0db", "mp3_32kbit")
    assert said == [lost[name] for name in named]


def test_training_command(synthetic_corpora, tmp_path):
    line = command("accelerate launch train.py")
    line = line.replace("--data-dir data", f"--data-dir {synthetic_corpora}")
    line = line.replace("--output-dir runs/mine", f"--output-dir {tmp_path / 'mine'}")
    assert "--data-dir data" not in line and "runs/mine" not in line
    small = "--training.epochs 1 --split.test '[ravdess-01, tess-YAF]' --split.validation '[ravdess-02]'"
    result = run(f"{line} {small}", cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "mine" / "model.safetensors").exists()


def test_own_labels_are_learnt_and_predicted(tmp_path):
    rng = np.random.default_rng(0)
    for label, voice in (("calm", "calm"), ("tense", "lively")):
        (folder := tmp_path / "data" / "mine" / label).mkdir(parents=True)
        sound, rate = soundfile.read(ROOT / "examples" / f"synthetic_{voice}_voice.flac")
        for number in range(24):
            piece = sound[number * 400 : number * 400 + 2 * rate] + rng.normal(0, 10 ** rng.uniform(-4, -2.5), 2 * rate)
            soundfile.write(folder / f"{number}.wav", piece, rate)
    own = {"--data-dir data": f"--data-dir {tmp_path / 'data'}", "runs/calm_or_tense": str(tmp_path / "run")}
    own |= {"data/mine": str(tmp_path / "data" / "mine"), "calm_or_tense.csv": str(tmp_path / "out.csv")}
    for start in ("accelerate launch train.py --config configs/finetune", "python -m ser_model predict data/mine"):
        line = command(start)
        for promised, place in own.items():
            line = line.replace(promised, place)
        result = run(line, cwd=ROOT)
        assert result.returncode == 0, result.stderr
    with open(tmp_path / "out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    right = [row["label"] == Path(row["path"]).parent.name for row in rows]
    assert len(right) == 48 and sum(right) >= 44


def test_explore_command(synthetic_corpora, tmp_path):
    line = command("python -m ser_model explore")
    line = line.replace("--data-dir data", f"--data-dir {synthetic_corpora}").replace(
        "runs/look", str(tmp_path / "look")
    )
    assert "--data-dir data" not in line and "runs/look" not in line
    result = run(line, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "look" / "index.html").exists()


def test_make_demo_serves_the_page():
    if not (ROOT / ".venv" / ".installed").exists():
        pytest.fail("make demo would install into .venv first; run the tests with: make test")
    port = free_port()
    process = subprocess.Popen(["make", "demo", f"PORT={port}"], cwd=ROOT, start_new_session=True)
    try:
        wait_until_it_answers(f"http://127.0.0.1:{port}", process)
        assert "How does this voice sound?" in urlopen(f"http://127.0.0.1:{port}").read().decode()
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=30)


def test_front_matter_is_what_a_space_needs():
    front_matter = yaml.safe_load(README.split("---")[1])
    assert front_matter["sdk"] == "gradio"
    assert (ROOT / front_matter["app_file"]).exists()
    assert len(front_matter["short_description"]) <= 60  # the Hub refuses longer ones


PAGES = [file for folder in (".", "configs", "docs") for file in sorted((ROOT / folder).glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_pictures_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        place, _, anchor = target.partition("#")
        if "://" in place:
            continue
        file = page.parent / place if place else page
        assert file.exists(), target
        headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE) if anchor else []
        assert not anchor or anchor in [re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in headings]
