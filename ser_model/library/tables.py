"""The one table of the library.

The sound lies in the database too, as FLAC: so one URL is the whole library, a clip and its labels come and go in one
transaction, and the backup of the database is the backup of everything. Speech at 16 kHz packs to about 15 kB a second.
"""

from datetime import UTC, datetime

from sqlalchemy import JSON, DateTime, Index, LargeBinary, MetaData, String, func
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

NAME_CHARS = 200
LABEL_CHARS = 50


class UtcTime(TypeDecorator):
    """A moment with its time zone; SQLite keeps none, so there it is written and read as UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect) -> datetime | None:
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect) -> datetime | None:
        return value and (value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC))


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={"ix": "ix_%(table_name)s_%(column_0_name)s", "uq": "uq_%(table_name)s_%(column_0_name)s"}
    )


class Clip(Base):
    """One sound: what it was called, what a model heard in it, and what a person says it is."""

    __tablename__ = "clips"
    __table_args__ = (
        Index(None, "added_at", "id"),
        {"sqlite_autoincrement": True},  # no id twice: a page that still shows a deleted clip must not reach another
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), unique=True)  # of the samples (16-bit, 16 kHz), not of the FLAC
    name: Mapped[str] = mapped_column(String(NAME_CHARS))
    duration_s: Mapped[float]
    added_at: Mapped[datetime] = mapped_column(UtcTime)
    model: Mapped[str] = mapped_column(String(NAME_CHARS))
    predicted: Mapped[str] = mapped_column(String(LABEL_CHARS))
    scores: Mapped[dict[str, float]] = mapped_column(JSON)  # calibrated probability of every label of the model
    # What a person says it is, be it what the model said; None while nobody has. The library has no accounts.
    # The column is older: it held corrections alone, so of a row without one nobody is known to agree with the model.
    confirmed: Mapped[str | None] = mapped_column("corrected", String(LABEL_CHARS))
    audio: Mapped[bytes] = mapped_column(LargeBinary, deferred=True, deferred_raiseload=True)  # read by `Library.audio`

    @property
    def confidence(self) -> float:
        """Of the model, in what it said."""
        return self.scores[self.predicted]

    @hybrid_property
    def label(self) -> str:
        """What the clip is found under: the person's word before the model's. Only `confirmed` is fit to learn from."""
        return self.confirmed or self.predicted

    @label.inplace.expression
    @classmethod
    def _label(cls):
        return func.coalesce(cls.confirmed, cls.predicted)
