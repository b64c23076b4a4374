"""The corpora by name, and one call that lists whatever a config asks for."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..labels import nearest
from .base import Corpus, CorpusError, NamingError, Problem, Scan, Utterance
from .cremad import CremaD
from .folder import Folder
from .ravdess import Ravdess
from .savee import Savee
from .tess import Tess

__all__ = [
    "CORPORA",
    "Corpus",
    "CorpusError",
    "Problem",
    "Scan",
    "Utterance",
    "find_utterances",
    "make_corpus",
    "named_speaker",
]

CORPORA: dict[str, type[Corpus]] = {corpus.name: corpus for corpus in (Ravdess, Tess, CremaD, Savee, Folder)}


def make_corpus(spec: Mapping) -> Corpus:
    """A corpus from `{"name": "ravdess", "channels": ["speech"]}`: a name from CORPORA and its constructor's options.

    Raises CorpusError for an unknown name or option, with the nearest valid one, and for an option that is missing.
    """
    options = dict(spec)
    name = options.pop("name", None)
    if not isinstance(name, str) or name not in CORPORA:
        raise CorpusError(f"unknown corpus {name!r}{nearest(name, CORPORA)}; known: {', '.join(CORPORA)}")
    signature = inspect.signature(CORPORA[name])
    for option in options:
        if option not in signature.parameters:
            known = ", ".join(signature.parameters) or "none"
            raise CorpusError(
                f"unknown {name} option {option!r}{nearest(option, signature.parameters)}; known: {known}"
            )
    try:
        signature.bind(**options)
        return CORPORA[name](**options)
    except TypeError as error:  # an option is missing, or of a type that no such option has
        raise CorpusError(f"corpus {name}: {error}") from error


def named_speaker(path: str | Path) -> str | None:
    """The speaker that a file of a known corpus names, wherever it lies and whatever its format; else None."""
    path = Path(path)
    for corpus in CORPORA.values():
        if match := corpus.matches(path):
            try:
                return corpus().parse(path, match).speaker
            except NamingError:
                continue
    return None


def find_utterances(data_dir: str | Path, corpora: Sequence[Mapping]) -> Scan:
    """List `corpora` (see `make_corpus`) in `data_dir`, in the order given; a file belongs to the first that takes it.

    Raises CorpusError where a corpus is unknown or not found, or two folders or tables have a speaker of one name.
    """
    data_dir = Path(data_dir)
    if not corpora:
        raise CorpusError(f"no corpora given; known: {', '.join(CORPORA)}")
    found: dict[Path, Utterance] = {}
    problems, strays, notes = [], {}, []
    roots: dict[str, Path] = {}
    owners: dict[str, str] = {}  # of a name that a person gave a speaker: the data that have it
    for corpus in map(make_corpus, corpora):
        root = corpus.locate(data_dir)
        if roots.setdefault(corpus.name, root) != root:
            raise CorpusError(
                f"{roots[corpus.name]} and {root} are both called {corpus.name}; give one another `corpus:`"
            )
        scan = corpus.scan(root)
        notes += scan.notes
        for problem in (replace(problem, corpus=corpus.name) for problem in scan.problems):
            if root != data_dir or corpus.matches(problem.path):
                problems.append(problem)
            else:
                strays[problem.path] = problem
        if again := sum(utterance.path in found for utterance in scan.utterances):
            notes.append(f"{corpus.name}: {again} clips were listed already, by a corpus named before; kept as that")
        for utterance in scan.utterances:
            if found.setdefault(utterance.path, utterance) is utterance and isinstance(corpus, Folder):
                _refuse_namesakes(utterance, owners)
    problems += [stray for path, stray in strays.items() if path not in found and not _is_known(path)]
    own = (root if root.is_dir() else root.parent for root in roots.values())  # of a table, where it lies
    return Scan(list(found.values()), problems, notes, (data_dir, *own))


def _refuse_namesakes(utterance: Utterance, owners: dict[str, str]) -> None:
    """Or one person, tested in one table and trained on in another, would count as two."""
    speaker = utterance.speaker.removeprefix(f"{utterance.corpus}-")
    if utterance.speaker_known and owners.setdefault(speaker, utterance.corpus) != utterance.corpus:
        raise CorpusError(
            f"{owners[speaker]} and {utterance.corpus} both name a speaker {speaker!r}: if that is one person, put the "
            "clips of both into one table (its column `split` can part them); if not, name them apart"
        )


def _is_known(path: Path) -> bool:
    """True for a clip of any corpus: where several share one folder, it is no stray though not asked for."""
    return any(corpus.matches(path) for corpus in CORPORA.values())
