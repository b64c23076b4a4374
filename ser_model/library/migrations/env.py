"""Alembic's way in. `store.py` hands over a connection in a transaction of its own; there is no alembic.ini."""

from alembic import context

from ser_model.library.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite cannot alter a table in place
)
with context.begin_transaction():
    context.run_migrations()
