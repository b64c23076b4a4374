"""What can be done with the library, on SQLite and on PostgreSQL alike."""

import hashlib
import io
import re
import threading
import unicodedata
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import PurePath
from typing import BinaryIO

import numpy as np
import soundfile
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, Select, create_engine, event, func, make_url, select
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, undefer

from ..archives import shown
from .errors import LibraryError
from .tables import LABEL_CHARS, NAME_CHARS, Clip

WAIT_S = 10  # for a lock or a connection; then the library is said to be busy or away
MIGRATION_LOCK = 0x5E21  # any number that no other program of the same database takes
SAMPLING_RATE_HZ = 16_000
MAX_CLIP_S = 600  # 10 minutes, 10 MB: a page can hold it to play it
EXPORT_FOLDER = "library"  # below the data folder; nobody's own clips lie there, so the next export may replace it

# What a database may do to us, in a word and in a sentence.
FAULTS = {
    "away": "the library cannot be reached; see that its database is running and that SER_LIBRARY_URL names it",
    "busy": "the library is busy; try again in a moment",
    "full": "the disk of the library is full; free some space on it, or delete clips",
    "read_only": "the library may only be read; give this program the right to write to its database",
    "damaged": "the library's file is no SQLite database, or a damaged one; put back a copy, or name another file",
    "newer": "the library was made by a newer version of this program; update the program",
}
# Primary result codes (https://sqlite.org/rescode.html) and SQLSTATEs (the two places, or all five, of
# https://www.postgresql.org/docs/current/errcodes-appendix.html).
SQLITE_FAULTS = {5: "busy", 6: "busy", 8: "read_only", 11: "damaged", 13: "full", 14: "away", 26: "damaged"}
POSTGRESQL_FAULTS = {"53100": "full", "42501": "read_only", "25006": "read_only"}
POSTGRESQL_FAULTS |= dict.fromkeys(("40", "53", "55"), "busy")

_migrating = threading.Lock()  # Alembic keeps what it is at in globals


@dataclass(frozen=True)
class Listing:
    """One page of what was found, newest first, and how many there are on all pages."""

    clips: list[Clip]
    total: int


@dataclass(frozen=True)
class Exported:
    """How many clips of each label were written, and how many were left out, for no person has said what they are."""

    labels: dict[str, int]
    unchecked: int


class Library:
    """The clips behind one URL. Safe to share between threads; other processes may use the same database.

    Args:
        url: `sqlite:///library.db` (a file in the working folder; `sqlite:////srv/library.db` is absolute) or
            `postgresql://user:password@host/database`. Tables are made, or brought up to date, at once.

    Raises:
        LibraryError: here and in every method, where the database does not do what it is asked.
    """

    def __init__(self, url: str):
        self._engine = _engine(url)
        self._writing_engine = self._engine.execution_options(writes=True)
        self._migrate()

    def close(self) -> None:
        """Give the connections back to the database."""
        self._engine.dispose()

    @staticmethod
    def check_duration(duration_s: float) -> None:
        """Raises LibraryError for a clip that `add` would refuse as too long."""
        if duration_s > MAX_CLIP_S:
            sentence = f"a clip of {duration_s:.0f} s came; keep at most {MAX_CLIP_S} s, so cut it first"
            raise LibraryError(sentence, "too_long")

    def add(
        self,
        waveform: np.ndarray,
        sampling_rate: int,
        *,
        name: str,
        model: str,
        label: str,
        scores: Mapping[str, float],
    ) -> tuple[Clip, bool]:
        """Keep a sound (T,) in [-1, 1] and what `model` heard in it; the clip, and whether it is new.

        The same sound twice is one clip, whatever it is called: the first stays as it is.
        """
        from ..audio import resample  # torch, for which a page that starts need not wait

        self.check_duration(len(waveform) / sampling_rate)
        waveform = resample(waveform, sampling_rate, SAMPLING_RATE_HZ)
        duration_s = len(waveform) / SAMPLING_RATE_HZ
        samples = np.round(np.clip(waveform, -1, 1) * np.iinfo(np.int16).max).astype("<i2")
        sha256 = hashlib.sha256(samples.tobytes()).hexdigest()
        same = select(Clip).where(Clip.sha256 == sha256)
        while True:
            with self._reading() as session:
                if known := session.scalar(same):
                    return known, False
            clip = Clip(
                sha256=sha256,
                name=shown(name)[:NAME_CHARS],
                duration_s=duration_s,
                added_at=datetime.now(UTC),
                model=shown(model)[:NAME_CHARS],
                predicted=_checked_label(label),
                scores=dict(scores),
                audio=_flac(samples),
            )
            try:
                with self._writing() as session:
                    session.add(clip)
                return clip, True
            except IntegrityError:
                continue  # somebody else has just added it, and may even delete it before we look

    def find(
        self,
        label: str | None = None,
        since: date | None = None,
        until: date | None = None,
        page: int = 0,
        page_size: int = 20,
        unchecked: bool = False,
    ) -> Listing:
        """Clips that count as `label`, added on the days (in UTC) from `since` to `until`, both included; with
        `unchecked` those alone of which no person has said what they are.
        """
        found = select(Clip)
        if label:
            found = found.where(Clip.label == label)
        if unchecked:
            found = found.where(Clip.confirmed.is_(None))
        if since:
            found = found.where(Clip.added_at >= datetime.combine(since, time(), UTC))
        if until:
            found = found.where(Clip.added_at <= datetime.combine(until, time.max, UTC))
        newest_first = found.order_by(Clip.added_at.desc(), Clip.id.desc()).offset(page * page_size).limit(page_size)
        with self._reading() as session:
            total = session.scalar(select(func.count()).select_from(found.with_only_columns(Clip.id).subquery()))
            return Listing(list(session.scalars(newest_first)), total)

    def labels(self) -> dict[str, int]:
        """How many clips count as each label, in alphabetical order."""
        counted = select(Clip.label, func.count()).group_by(Clip.label).order_by(Clip.label)
        with self._reading() as session:
            return {label: count for label, count in session.execute(counted)}

    def unchecked(self) -> int:
        """How many clips there are of which no person has said what they are."""
        with self._reading() as session:
            return session.scalar(select(func.count()).where(Clip.confirmed.is_(None)))

    def get(self, clip_id: int) -> Clip:
        """One clip, without its sound."""
        with self._reading() as session:
            return _one(session, select(Clip).where(Clip.id == clip_id))

    def audio(self, clip_id: int) -> bytes:
        """The sound as a FLAC file: mono, 16 kHz, 16 bits."""
        with self._reading() as session:
            return _one(session, select(Clip.audio).where(Clip.id == clip_id))

    def correct(self, clip_id: int, label: str | None) -> Clip:
        """Say what a clip is, be it what the model said; None takes that back, and the clip counts as unchecked."""
        if label is not None:
            label = _checked_label(label)
        with self._writing() as session:
            clip = _one(session, select(Clip).where(Clip.id == clip_id).with_for_update())
            clip.confirmed = label
            return clip

    def delete(self, clip_id: int) -> None:
        """Take a clip out for good, with its sound."""
        with self._writing() as session:
            session.delete(_one(session, select(Clip).where(Clip.id == clip_id).with_for_update()))

    def export(self, file: BinaryIO) -> Exported:
        """Write the clips that a person has labelled, as a zip that unpacks to a `folder` corpus,
        `library/<label>/<id>-<name>.flac`. What a model said of a clip is no label to train the next one on.

        Unpacked in the data folder, it is what `configs/finetune_folder.yaml` reads once it is told that path, and the
        labels, which are the keys of `Exported.labels`. One clip at a time is in memory.
        """
        counts: dict[str, int] = {}
        last_id = 0
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:  # FLAC is packed already
            while True:
                checked = select(Clip).options(undefer(Clip.audio)).where(Clip.confirmed.is_not(None))
                next_one = checked.where(Clip.id > last_id).order_by(Clip.id).limit(1)
                with self._reading() as session:  # of its own for each, so that a slow disk holds up nobody
                    clip = session.scalar(next_one)
                if clip is None:
                    return Exported(dict(sorted(counts.items())), self.unchecked())
                stem = re.sub(r"[^\w-]+", "_", PurePath(clip.name).stem)[:60]
                archive.writestr(f"{EXPORT_FOLDER}/{clip.confirmed}/{clip.id}-{stem}.flac", clip.audio)
                counts[clip.confirmed] = counts.get(clip.confirmed, 0) + 1
                last_id = clip.id

    def _migrate(self) -> None:
        with _in_words(), _migrating, self._writing_engine.begin() as connection:
            if connection.dialect.name == "postgresql":  # SQLite's transaction has locked the whole file
                connection.execute(select(func.pg_advisory_xact_lock(MIGRATION_LOCK)))
            try:
                command.upgrade(migrations(connection), "head")
            except CommandError as error:
                raise _failed("newer") from error

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        with _in_words(), Session(self._engine) as session:
            yield session

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        with _in_words(), Session(self._writing_engine, expire_on_commit=False) as session, session.begin():
            yield session


def migrations(connection: Connection) -> Config:
    """Alembic's settings, to work over `connection`."""
    config = Config()
    config.set_main_option("script_location", "ser_model.library:migrations")
    config.attributes["connection"] = connection
    return config


def _engine(url: str) -> Engine:
    wanted = "give sqlite:///library.db, or postgresql://user:password@host/database"
    try:
        parts = make_url(url)
    except ArgumentError as error:
        raise LibraryError(f"SER_LIBRARY_URL is no database URL; {wanted}") from error
    if parts.drivername == "sqlite":
        if parts.database in (None, "", ":memory:"):
            raise LibraryError(f"SER_LIBRARY_URL names no file, so nothing would be kept; {wanted}")
        return _sqlite(parts)
    if parts.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        return _postgresql(parts.set(drivername="postgresql+psycopg"))
    raise LibraryError(f"SER_LIBRARY_URL is for {parts.drivername!r}; {wanted}")


def _sqlite(url: URL) -> Engine:
    engine = create_engine(url, connect_args={"timeout": WAIT_S})

    @event.listens_for(engine, "connect")
    def connect(connection, _) -> None:
        connection.isolation_level = None  # sqlite3 would begin later than it is told, and not at all before DDL
        connection.execute("PRAGMA secure_delete = ON")  # a voice that is deleted is overwritten in the file

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes")  # who reads first and then writes may not wait
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgresql(url: URL) -> Engine:
    engine = create_engine(url, pool_pre_ping=True, pool_timeout=WAIT_S, connect_args={"connect_timeout": WAIT_S})

    @event.listens_for(engine, "connect")
    def connect(connection, _) -> None:
        connection.execute(f"SET lock_timeout = '{WAIT_S}s'")
        connection.commit()

    return engine


@contextmanager
def _in_words() -> Iterator[None]:
    """What a database says, in a sentence; IntegrityError is for who adds."""
    try:
        yield
    except IntegrityError:
        raise
    except DBAPIError as error:
        raise _failed(_fault(error.orig)) from error
    except PoolTimeoutError as error:
        raise _failed("busy") from error


def _failed(fault: str) -> LibraryError:
    return LibraryError(FAULTS[fault], fault)


def _fault(error: BaseException | None) -> str:
    """A key of FAULTS."""
    if (code := getattr(error, "sqlite_errorcode", None)) is not None:
        return SQLITE_FAULTS.get(code & 0xFF, "away")
    state = getattr(error, "sqlstate", None) or ""
    return POSTGRESQL_FAULTS.get(state) or POSTGRESQL_FAULTS.get(state[:2], "away")


def _one(session: Session, wanted: Select):
    if (found := session.scalar(wanted)) is None:
        raise LibraryError("this clip is no longer in the library; look at the list again", "gone")
    return found


def _checked_label(label: str) -> str:
    label = unicodedata.normalize("NFC", label.strip())
    # It becomes the name of a folder. Marks are the vowels of Hindi, Thai and others, to which \w is blind.
    usual = all(sign in " _-" or unicodedata.category(sign)[0] in "LMN" for sign in label)
    if not (usual and label[:1].isalnum() and len(label) <= LABEL_CHARS):
        raise LibraryError(
            f"the label {shown(label)[:LABEL_CHARS]!r} cannot be kept; give a letter or digit and then at most "
            f"{LABEL_CHARS - 1} letters, digits, spaces, _ or -",
            "label",
        )
    return label


def _flac(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLING_RATE_HZ, format="FLAC", subtype="PCM_16")
    return file.getvalue()
