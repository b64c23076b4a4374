"""Apart from the rest, so that a page without a library need not load a database's drivers."""


class LibraryError(Exception):
    """Why the library cannot do what was asked, and the remedy; names no place or password, so fit to be shown."""
