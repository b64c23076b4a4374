"""Apart from the rest, so that a page without a library need not load a database's drivers."""


class LibraryError(Exception):
    """Why the library cannot do what was asked, and the remedy; names no place or password, so fit to be shown.

    Args:
        reason: a word for it, by which a page finds the sentence of another language; None at the start of a program.
    """

    def __init__(self, sentence: str, reason: str | None = None):
        super().__init__(sentence)
        self.reason = reason
