"""The team's library, on SQLite and on a real PostgreSQL: what it keeps and says, and many who use it at once."""

import contextlib
import io
import os
import pwd
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import unicodedata
import zipfile
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import psycopg
import pytest
import soundfile
from alembic import command
from psycopg import sql
from sqlalchemy import text, update
from sqlalchemy.exc import OperationalError

from ser_model.data import load_data
from ser_model.library import store
from ser_model.library.errors import LibraryError
from ser_model.library.store import Exported, Library, migrations
from ser_model.library.tables import Clip
from ser_model.page.library import training_command
from ser_model.settings import load_settings
from train import main

ROOT = Path(__file__).resolve().parent.parent
RATE = 16_000


# ── Databases ──


def postgres_program(name: str) -> str:
    """Debian keeps the server's programs off the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}")) or [shutil.which(name)]
    if found[-1] is None:
        message = "this test needs PostgreSQL; on Debian: apt-get install postgresql"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return str(found[-1])


def as_postgres(*arguments: str) -> None:
    """The server refuses to run as root."""
    user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    subprocess.run([*user, *arguments], check=True, stdout=subprocess.DEVNULL, cwd="/", timeout=120)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Path]:
    """The folder of the socket of a server of our own, which listens on no port."""
    initdb, pg_ctl = postgres_program("initdb"), postgres_program("pg_ctl")
    with tempfile.TemporaryDirectory(prefix="ser-pg-") as folder:  # pytest's own folders are closed to other users
        if os.geteuid() == 0:
            account = pwd.getpwnam("postgres")
            os.chown(folder, account.pw_uid, account.pw_gid)
        data = f"{folder}/data"
        as_postgres(initdb, "-D", data, "-U", "ser", "-A", "trust", "-E", "UTF8", "--no-sync")
        options = f"-k {folder} -c listen_addresses='' -c fsync=off -c max_connections=40"
        as_postgres(pg_ctl, "-D", data, "-l", f"{folder}/log", "-o", options, "-w", "start")
        os.chmod(folder, 0o755)  # for our own process, which is another user
        try:
            yield Path(folder)
        finally:
            as_postgres(pg_ctl, "-D", data, "-m", "immediate", "-w", "stop")


@pytest.fixture
def postgres_url(postgres, request) -> str:
    """An empty database."""
    name = f"ser_{abs(hash(request.node.nodeid))}"
    with psycopg.connect(f"host={postgres} user=ser dbname=postgres", autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return f"postgresql://ser@/{name}?host={postgres}"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path) -> str:
    return f"sqlite:///{tmp_path}/library.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture
def library(url) -> Iterator[Library]:
    with contextlib.closing(Library(url)) as library:
        yield library


def tone(pitch_hz: float, seconds: float = 0.5, rate: int = RATE) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * pitch_hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def add(library: Library, pitch_hz: float, label: str = "angry", name: str = "a.wav") -> tuple[Clip, bool]:
    scores = {label: 0.75, "calm": 0.25}
    return library.add(tone(pitch_hz), RATE, name=name, model="ser-cnn-8", label=label, scores=scores)


# ── What it keeps ──


def test_a_clip_survives_a_restart_with_all_that_is_known_of_it(url):
    before = datetime.now().astimezone()
    with contextlib.closing(Library(url)) as library:
        clip, is_new = add(library, 300, name="Aufnahme ü 録音\x00\n.wav")
    assert is_new
    with contextlib.closing(Library(url)) as library:
        [found] = library.find().clips
        sound, rate = soundfile.read(io.BytesIO(library.audio(found.id)), dtype="float32")
    assert (found.id, found.name, found.model) == (clip.id, "Aufnahme ü 録音.wav", "ser-cnn-8")
    assert (found.label, found.predicted, found.confidence, found.confirmed) == ("angry", "angry", 0.75, None)
    assert found.scores == {"angry": 0.75, "calm": 0.25} and found.duration_s == 0.5
    assert before <= found.added_at <= datetime.now().astimezone()
    assert rate == RATE and sound == pytest.approx(tone(300), abs=2 / 2**15)


def test_the_same_sound_twice_is_one_clip(library):
    first, _ = add(library, 300)
    again, is_new = add(library, 300, label="calm", name="b.wav")
    assert not is_new and again.id == first.id and again.name == "a.wav" and again.label == "angry"
    assert add(library, 301)[1]
    assert library.find().total == 2


def test_another_rate_becomes_that_of_the_library(library):
    clip, _ = library.add(tone(300, rate=48_000), 48_000, name="a", model="m", label="sad", scores={"sad": 1})
    assert soundfile.info(io.BytesIO(library.audio(clip.id))).frames == RATE / 2


def test_an_hour_is_no_clip(library):
    with pytest.raises(LibraryError, match="601 s came; keep at most 600 s"):
        library.add(np.zeros(601 * RATE, np.float32), RATE, name="a", model="m", label="sad", scores={"sad": 1})


def test_find_by_label_by_day_and_page_by_page(library, url):
    for number in range(7):
        add(library, 300 + number, label=("angry", "sad")[number % 2], name=f"{number}.wav")
    library.correct(library.find().clips[0].id, "happy")  # the newest, number 6
    assert [clip.name for clip in library.find(page_size=3).clips] == ["6.wav", "5.wav", "4.wav"]
    assert [clip.name for clip in library.find(page=2, page_size=3).clips] == ["0.wav"]
    assert [clip.name for clip in library.find(label="angry").clips] == ["4.wav", "2.wav", "0.wav"]
    assert library.labels() == {"angry": 3, "happy": 1, "sad": 3}
    long_ago = datetime(2020, 2, 29, 23, 59, 59).astimezone().replace(tzinfo=store.UTC)
    with library._writing() as session:
        session.execute(update(Clip).where(Clip.name == "3.wav").values(added_at=long_ago))
    day = date(2020, 2, 29)
    assert [clip.name for clip in library.find(since=day, until=day).clips] == ["3.wav"]
    assert library.find(until=day - timedelta(days=1)).total == 0
    assert library.find(until=date.max).total == library.find(since=date.min).total == library.find().total
    assert library.find(since=day + timedelta(days=1)).total == 6
    assert library.find("sad", since=day, until=day).total == 1


def test_a_person_may_correct_confirm_and_take_it_back(library):
    clip, _ = add(library, 300)
    assert library.unchecked() == library.find(unchecked=True).total == 1
    assert library.correct(clip.id, " calm ").label == "calm"
    assert library.find().clips[0].predicted == "angry"
    assert library.correct(clip.id, "angry").confirmed == "angry"
    assert library.unchecked() == library.find(unchecked=True).total == 0
    assert library.correct(clip.id, None).confirmed is None
    assert library.find("angry", unchecked=True).total == 1


def test_of_a_library_that_held_corrections_alone_those_count_as_checked(library):
    for number in range(2):
        add(library, 300 + number)
    with library._writing_engine.begin() as connection:
        connection.execute(text("UPDATE clips SET corrected = 'sad' WHERE id = 2"))
    assert [(clip.predicted, clip.confirmed) for clip in library.find().clips] == [("angry", "sad"), ("angry", None)]
    assert library.export(io.BytesIO()) == Exported({"sad": 1}, unchecked=1)


def test_what_is_deleted_is_gone_and_its_number_never_given_again(library, url, tmp_path):
    clip, _ = add(library, 300)
    library.delete(clip.id)
    assert library.find().total == 0
    for use in (lambda: library.audio(clip.id), lambda: library.delete(clip.id), lambda: library.correct(clip.id, "x")):
        with pytest.raises(LibraryError, match="no longer in the library"):
            use()
    assert add(library, 301)[0].id > clip.id
    if url.startswith("sqlite"):
        library.delete(library.find().clips[0].id)
        assert b"fLaC" not in (tmp_path / "library.db").read_bytes()


@pytest.mark.parametrize("label", ["गुस्सा", "थका हुआ", "müde", "高兴", "no_2 b"])
def test_a_label_may_be_a_word_of_any_language(library, label):
    clip, _ = add(library, 300)
    assert library.correct(clip.id, label).label == label


def test_a_label_is_one_however_its_letters_are_put_together(library):
    clip, _ = add(library, 300)
    assert library.correct(clip.id, unicodedata.normalize("NFD", "müde")).label == "müde"


@pytest.mark.parametrize("label", ["", "../up", ".hidden", "a/b", "x" * 51, "new\nline", "_x"])
def test_a_label_that_could_be_no_folder_is_refused(library, label):
    clip, _ = add(library, 300)
    with pytest.raises(LibraryError, match="cannot be kept; give a letter"):
        library.correct(clip.id, label)


# ── Training from it ──


def test_the_export_is_a_corpus_that_training_takes(library, tmp_path):
    for number in range(24):
        label = ("calm", "tense")[number % 2]
        heard = "angry" if number == 1 else label
        clip, _ = add(library, 200 + 40 * number, label=heard, name=f"../x/{number} ü.wav")
        library.correct(clip.id, label)
    add(library, 199, label="calm")  # as a model heard it
    with open(tmp_path / "library.zip", "w+b") as file:
        assert library.export(file) == Exported({"calm": 12, "tense": 12}, unchecked=1)
    with zipfile.ZipFile(tmp_path / "library.zip") as archive:
        archive.extractall(tmp_path / "data")
    assert len(list((tmp_path / "data" / "library" / "tense").glob("*.flac"))) == 12
    assert (tmp_path / "data" / "library" / "calm" / "1-0_ü.flac").exists()
    words = shlex.split(training_command(["calm", "tense"]))
    settings = load_settings(ROOT / words[words.index("--config") + 1], words[words.index("--config") + 2 : -4])
    data = load_data(settings, tmp_path / "data", RATE)
    assert len(data.utterances) == 24 and data.problems == []


def test_one_epoch_from_the_export(tmp_path):
    with contextlib.closing(Library(f"sqlite:///{tmp_path}/library.db")) as library:
        for number in range(20):
            clip, _ = add(library, 200 + 40 * number)
            library.correct(clip.id, ("calm", "tense")[number % 2])
        with open(tmp_path / "library.zip", "w+b") as file:
            library.export(file)
    with zipfile.ZipFile(tmp_path / "library.zip") as archive:
        archive.extractall(tmp_path / "data")
    config = ["--config", str(ROOT / "configs" / "finetune_folder.yaml"), "--training.epochs", "1"]
    config += ["--data.corpora", "[{name: folder, path: library}]"]
    folders = ["--data-dir", str(tmp_path / "data"), "--output-dir", str(tmp_path / "run")]
    base = ["--training.base_model", str(ROOT / "checkpoints" / "ser-cnn-8")]
    main([*config, *folders, *base])
    assert (tmp_path / "run" / "model.safetensors").exists()


# ── Migrations ──


def test_models_and_migrations_agree(library):
    with library._writing_engine.begin() as connection:
        command.check(migrations(connection))


def test_migrations_go_down_and_up_again(library):
    with library._writing_engine.begin() as connection:
        command.downgrade(migrations(connection), "base")
        command.upgrade(migrations(connection), "head")
    assert add(library, 300)[1]


def test_a_library_of_a_newer_version_is_left_as_it_is(url):
    with contextlib.closing(Library(url)) as library:
        add(library, 300)
        with library._writing_engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        with pytest.raises(LibraryError, match="newer version of this program; update the program"):
            Library(url)
        assert library.find().total == 1


def test_the_wheel_carries_the_migrations(tmp_path):
    build = "from setuptools import build_meta; build_meta.build_wheel(__import__('sys').argv[1])"
    shutil.copytree(ROOT / "ser_model", tmp_path / "source" / "ser_model")
    for name in ("pyproject.toml", "README.md", "LICENSE", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path / "source")
    done = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=tmp_path / "source", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    [wheel] = tmp_path.glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("ser_model/library/")}
    here = [path for path in (ROOT / "ser_model" / "library").rglob("*") if path.suffix in (".py", ".mako")]
    assert packed == {path.relative_to(ROOT).as_posix() for path in here}


# ── Many at once ──

ADD_FROM_A_PROCESS = """
import sys
import numpy as np
from ser_model.library.store import Library
library = Library(sys.argv[1])
tones = (np.sin(np.arange(8000) / (10 + number)) for number in range(10))
print(sum(library.add(tone, 16_000, name="a", model="m", label="sad", scores={"sad": 1})[1] for tone in tones))
"""


def test_processes_that_migrate_and_add_at_once_agree(url):
    command_line = [sys.executable, "-c", ADD_FROM_A_PROCESS, url]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    runs = [subprocess.Popen(command_line, cwd=ROOT, text=True, **pipes) for _ in range(2)]
    answers = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], answers
    assert sum(int(out) for out, _ in answers) == 10
    with contextlib.closing(Library(url)) as library:
        assert library.find().total == 10


def test_threads_that_migrate_add_correct_and_delete_at_once_agree(url):
    faults, added = [], []
    start = threading.Barrier(6)

    def work(worker: int) -> None:
        try:
            start.wait()
            with contextlib.closing(Library(url)) as library:
                for number in range(6):
                    added.append(add(library, 300 + number)[1])
                own, _ = add(library, 1000 + worker)
                library.correct(own.id, "calm")
                library.delete(own.id)
        except Exception as error:  # noqa: BLE001  a thread's fault is the test's
            faults.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert faults == [] and sum(added) == 6
    with contextlib.closing(Library(url)) as library:
        assert library.labels() == {"angry": 6}


# ── What goes wrong ──


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("library.db", "is no database URL; give sqlite"),
        ("", "is no database URL"),
        ("mysql://root:secret@localhost/x", "is for 'mysql'; give sqlite"),
        ("sqlite://", "names no file, so nothing would be kept"),
        ("sqlite:////nowhere/at/all/library.db", "cannot be reached"),
        ("postgresql://ser:secret@/x?host=/nowhere", "cannot be reached"),
        ("postgresql://ser:secret@127.0.0.1:1/x", "cannot be reached"),
    ],
)
def test_a_url_that_leads_nowhere_ends_in_one_sentence_without_its_password(url, sentence):
    with pytest.raises(LibraryError, match=sentence) as caught:
        Library(url)
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "library.db").write_bytes(b"no database" * 1000)
    with pytest.raises(LibraryError, match="no SQLite database, or a damaged one"):
        Library(f"sqlite:///{tmp_path}/library.db")


def test_a_locked_file_is_busy(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "WAIT_S", 0.1)
    with contextlib.closing(Library(f"sqlite:///{tmp_path}/library.db")) as library:
        with contextlib.closing(sqlite3.connect(tmp_path / "library.db")) as other:
            other.execute("BEGIN EXCLUSIVE")
            with pytest.raises(LibraryError, match="busy; try again"):
                add(library, 300)
            with pytest.raises(LibraryError, match="busy; try again"):
                library.find()
        assert add(library, 300)[1]


def test_a_locked_table_is_busy(postgres_url, monkeypatch):
    monkeypatch.setattr(store, "WAIT_S", 1)
    with contextlib.closing(Library(postgres_url)) as library:
        with library._writing_engine.begin() as other:
            other.execute(text("LOCK TABLE clips IN ACCESS EXCLUSIVE MODE"))
            with pytest.raises(LibraryError, match="busy; try again"):
                add(library, 300)
        assert add(library, 300)[1]


def test_a_full_disk_is_said_and_costs_nothing(tmp_path):
    with contextlib.closing(Library(f"sqlite:///{tmp_path}/library.db")) as library:
        add(library, 300)
        with library._engine.connect() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")  # of this connection, which the pool keeps
        noise = np.random.default_rng(0).normal(0, 0.1, 10 * RATE)
        with pytest.raises(LibraryError, match="disk of the library is full; free some space"):
            library.add(noise, RATE, name="a", model="m", label="sad", scores={"sad": 1})
        assert library.find().total == 1


def test_a_full_disk_of_postgresql_is_said():
    error = OperationalError("INSERT", {}, psycopg.errors.DiskFull("could not extend file"))
    with pytest.raises(LibraryError, match="disk of the library is full"), store._in_words():
        raise error


def test_a_user_without_the_right_to_write(postgres_url):
    with contextlib.closing(Library(postgres_url)) as library:
        with library._writing_engine.begin() as connection:
            connection.execute(text("CREATE ROLE reader LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader"))
        add(library, 300)
    with contextlib.closing(Library(postgres_url.replace("ser@", "reader@"))) as library:
        assert library.find().total == 1
        with pytest.raises(LibraryError, match="may only be read"):
            add(library, 301)


def test_a_connection_that_the_server_ended_is_made_anew(postgres_url):
    with contextlib.closing(Library(postgres_url)) as library:
        add(library, 300)
        with library._engine.connect() as other:
            others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname"
            other.execute(text(f"{others} = current_database()"))
        assert library.find().total == 1
