"""The table of clips."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "clips",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("duration_s", sa.Double, nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("predicted", sa.String(50), nullable=False),
        sa.Column("scores", sa.JSON, nullable=False),
        sa.Column("corrected", sa.String(50)),
        sa.Column("audio", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("sha256", name="uq_clips_sha256"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_clips_added_at", "clips", ["added_at", "id"])


def downgrade() -> None:
    op.drop_table("clips")
