"""Splits into train, validation and test, the check that nothing leaks between them, and their manifest."""

import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .corpora import named_speaker
from .corpora.base import Folders, Utterance, relative_path
from .labels import nearest

PARTS = ("train", "validation", "test")

_RAVDESS = tuple(
    tuple(f"ravdess-{actor:02}" for actor in actors)
    for actors in (
        (1, 11, 20, 21),
        (4, 10, 12, 14),
        (8, 9, 19, 23),
        (3, 5, 7, 24),
        (2, 15, 16, 18),
        (6, 13, 17, 22),
    )
)
_TESS = (("tess-YAF",), ("tess-OAF",))
# Test speakers of each fold. RAVDESS: EmoBox's six (Ma et al. 2024, arXiv:2406.07162); TESS: one voice, then the other;
# both: the six, with a voice of TESS in the first two.
FOLDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "ravdess-speakers": _RAVDESS,
    "tess-speakers": _TESS,
    "ravdess-tess-speakers": (_RAVDESS[0] + _TESS[0], _RAVDESS[1] + _TESS[1], *_RAVDESS[2:]),
}

MORE_DRAWS = 50  # of speakers, where the first leaves a part without a label; two or three are enough as a rule

Amount = float | int | Sequence[str]  # a share of a corpus's speakers, a number of them, or their ids


class SplitError(ValueError):
    """A split that cannot be made, or a manifest that does not fit the data."""


class LeakError(SplitError):
    """A split that must not be used: parts share something, are incomplete, or the manifest was altered."""


@dataclass(frozen=True)
class Split:
    """Indices into a list of utterances; made by the functions below, which check it.

    `speaker_disjoint` is worked out from the utterances: no test speaker is heard in train or validation, and every
    speaker is known. `kind` is "random", "speakers", "<published name>/<fold>", "corpora", "column" or "all".
    """

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]
    kind: str
    speaker_disjoint: bool
    seed: int | None = None


def random_split(
    utterances: Sequence[Utterance],
    labels: Sequence[str],
    *,
    test: float = 0.2,
    validation: float = 0.1,
    seed: int,
) -> Split:
    """Each label parted alike; takes stay whole, speakers do not: the figure says little of a new voice.

    `labels` are the utterances' classes, `test` and `validation` shares of all utterances, met to the clip as far as
    whole takes allow. Raises SplitError when a share is senseless or a label too rare to be trained on.
    """
    _check_labels(utterances, labels)
    if not (test > 0 and validation > 0 and test + validation < 1):
        raise SplitError(f"test={test} and validation={validation} must be above 0 and leave something to train on")
    rng = random.Random(seed)
    takes = _takes_by_label(utterances, labels, range(len(utterances)), rng)
    parts = ["train"] * len(utterances)
    for part, share in (("test", test), ("validation", validation)):
        _assign(parts, _draw(takes, round(share * len(utterances)), rng), part)
    return _finish(utterances, parts, "random", seed, labels)


def speaker_split(
    utterances: Sequence[Utterance], labels: Sequence[str], *, test: Amount, validation: Amount, seed: int
) -> Split:
    """No speaker in two parts.

    `test` and `validation` are each a list of speaker ids, or a share or number of the speakers of every corpus, drawn
    with the corpus's balance of sexes and, as far as its speakers allow, all its labels in each part. A corpus that
    would have no speaker left to train on stays in train as a whole, as does one whose share rounds to none (TESS's two
    at 0.2). Adding a corpus does not change the draw in the others.

    Raises SplitError when a speaker is unknown, or a label would be tested but not trained on.
    """
    _check_labels(utterances, labels)
    _refuse_unnamed(utterances)
    return _finish(utterances, _speaker_parts(utterances, labels, test, validation, seed), "speakers", seed, labels)


def speaker_folds(
    utterances: Sequence[Utterance], labels: Sequence[str], folds: int, *, seed: int
) -> list[tuple[str, ...]]:
    """The test speakers of each of so many folds: every speaker in one of them, drawn as `speaker_split` draws.

    The speakers of each corpus are shared out evenly, in its balance of sexes and, as far as they allow, with all its
    labels in each fold. Raises SplitError when a speaker is unknown, or there are fewer than folds, or than three: one
    to test, one to validate and one to train on.
    """
    _check_labels(utterances, labels)
    _refuse_unnamed(utterances)
    by_corpus, labels_of = _speakers_of(utterances, labels)
    if (count := len(labels_of)) < max(folds, 3):
        raise SplitError(
            f"{folds} folds of unseen speakers were asked for, but the data have {count} speakers; ask for "
            + (f"{count} folds or fewer" if count >= 3 else "a random split, or add speakers: three at least")
        )
    tested: list[list[str]] = [[] for _ in range(folds)]
    for _, speakers in sorted(by_corpus.items()):
        each, more = divmod(len(speakers), folds)
        smallest_first = sorted(range(folds), key=lambda fold: len(tested[fold]))
        rest, *drawn = [(fold, each + (place < more)) for place, fold in enumerate(smallest_first)]
        counts = {fold: number for fold, number in drawn if number}
        sexes = {speaker: speakers[speaker] for speaker in sorted(speakers)}
        fold_of = _draw_speakers(sexes, counts, labels_of, random.Random(seed))
        for speaker in sexes:
            tested[fold_of.get(speaker, rest[0])].append(speaker)
    return [tuple(sorted(speakers)) for speakers in tested]


def published_split(
    utterances: Sequence[Utterance], name: str, fold: int, *, validation: Amount = 0.15, seed: int
) -> Split:
    """Fold `fold` (from 1) of the protocol `name` in FOLDS: its speakers are the test part, all else trains.

    `validation` as in `speaker_split`; 0.15 of RAVDESS's 24 actors are 4, as many as are tested. Where only one speaker
    is left to train on (tess-speakers), that share of its takes validates instead, each emotion alike.

    Raises SplitError for an unknown protocol or fold, and when a test speaker is absent: the figure would not compare.
    """
    if name not in FOLDS:
        raise SplitError(f"unknown protocol {name!r}{nearest(name, FOLDS)}; known: {', '.join(FOLDS)}")
    if fold not in range(1, len(FOLDS[name]) + 1):
        raise SplitError(f"{name} has folds 1 to {len(FOLDS[name])}; got {fold!r}")
    emotions = [utterance.emotion for utterance in utterances]
    parts = _speaker_parts(utterances, emotions, FOLDS[name][fold - 1], validation, seed)
    training = [index for index, part in enumerate(parts) if part == "train"]
    one_speaker = len({utterances[index].speaker for index in training}) == 1
    if one_speaker and "validation" not in parts and isinstance(validation, float):
        rng = random.Random(seed)
        takes = _takes_by_label(utterances, emotions, training, rng)
        _assign(parts, _draw(takes, round(validation * len(training)), rng), "validation")
    return _finish(utterances, parts, f"{name}/{fold}", seed)


def corpus_split(
    utterances: Sequence[Utterance],
    labels: Sequence[str],
    *,
    test_corpora: Sequence[str],
    validation: Amount = 0.1,
    seed: int,
) -> Split:
    """Whole corpora are tested, speakers of the others validate (`validation` as in `speaker_split`).

    Raises SplitError for a corpus that is not in the data, or a label that only the tested corpora have.
    """
    _check_labels(utterances, labels)
    corpora = sorted({utterance.corpus for utterance in utterances})
    wanted = [test_corpora] if isinstance(test_corpora, str) else test_corpora
    for corpus in wanted:
        if corpus not in corpora:
            raise SplitError(f"no corpus {corpus!r} in the data{nearest(corpus, corpora)}; there: {', '.join(corpora)}")
    test = sorted({utterance.speaker for utterance in utterances if utterance.corpus in wanted})
    return _finish(utterances, _speaker_parts(utterances, labels, test, validation, seed), "corpora", seed, labels)


def column_split(utterances: Sequence[Utterance], labels: Sequence[str]) -> Split:
    """The split that the data give themselves (`Utterance.split`).

    Raises SplitError where one gives none, or a label would be tested but not trained on.
    """
    _check_labels(utterances, labels)
    if silent := [utterance for utterance in utterances if utterance.split not in PARTS]:
        raise SplitError(
            f"{len(silent)} utterances say no split, the first is {silent[0].path}; its split column must be one of "
            f"{', '.join(PARTS)}, but is {silent[0].split!r}"
        )
    return _finish(utterances, [utterance.split for utterance in utterances], "column", None, labels)


def all_split(utterances: Sequence[Utterance]) -> Split:
    """Everything trains; for the model that is used in the end, whose figures come from a cross-validation."""
    return _finish(utterances, ["train"] * len(utterances), "all", None)


def check_split(split: Split, utterances: Sequence[Utterance], contents: Sequence[str] | None = None) -> None:
    """Raise LeakError unless `split` uses each utterance once, has no empty part, and shares nothing between parts.

    Only of the kind "all" are validation and test empty, and must be.

    Not shared may be: a file, a recording (which copies and augmented versions carry on) and, unless the split is
    random, a speaker; where `contents`, the hashes of the utterances' sounds, are given, no content ever. Only where a
    single speaker is left besides the test part may train and validation share that one.
    """
    _check_indices(split, len(utterances))
    _refuse_shared(split, [str(utterance.path) for utterance in utterances], "file")
    _refuse_shared(split, [utterance.recording for utterance in utterances], "recording")
    if contents is not None:
        if len(contents) != len(utterances) or not all(contents):
            raise SplitError("some sounds have no content hash: leave out what cannot be read, then split")
        names = {content: utterance.path for content, utterance in zip(contents, utterances, strict=True)}
        _refuse_shared(split, [f"{content} {names[content]}" for content in contents], "content")
    if split.kind != "random":
        rest = _speakers(utterances, split.train + split.validation)
        allowed = rest - _speakers(utterances, split.test) if len(rest) == 1 else set()
        remedy = (
            "; put all clips of a speaker into one part, or take split.kind: random, which says that voices are shared"
        )
        _refuse_shared(split, [utterance.speaker for utterance in utterances], "speaker", allowed, remedy)
    if split.speaker_disjoint != is_speaker_disjoint(utterances, split.train + split.validation, split.test):
        raise LeakError(f"the split says speaker_disjoint={split.speaker_disjoint}, the utterances say otherwise")


def is_speaker_disjoint(utterances: Sequence[Utterance], heard: Sequence[int], tested: Sequence[int]) -> bool:
    """Whether none of the indices `tested` is of a speaker of those in `heard`, and all utterances name theirs."""
    shared = _speakers(utterances, heard) & _speakers(utterances, tested)
    return bool(tested) and not shared and all(utterance.speaker_known for utterance in utterances)


def manifest(split: Split, utterances: Sequence[Utterance], folders: Folders) -> dict:
    """The split as JSON-able data: kind, speaker_disjoint, seed where there is one, the ids of each part, and `hash`.

    An id is "<corpus>/<path relative to the data folder>", or for a corpus elsewhere relative to its own, so that no
    machine's paths are told. `hash` is the SHA-256 of all the rest.
    """
    content = {"kind": split.kind, "speaker_disjoint": split.speaker_disjoint}
    if split.seed is not None:
        content["seed"] = split.seed
    for part in PARTS:
        content[part] = sorted(_id(utterances[index], folders) for index in getattr(split, part))
    return {**content, "hash": _hash(content)}


def continued(content: Mapping, base: str | Path | None, base_hash: str | None) -> dict:
    """The manifest `content` of a run that starts from a trained model: what that had heard, this one has heard too.

    `base` is the manifest beside that model, `base_hash` the one that its config names. Ids go into `heard_before`; it
    is None where they do not fit, or there is no manifest: nobody can tell then.
    """
    try:
        before = None if base is None else read_manifest(base)
        fits = before is not None and before["hash"] == base_hash
        heard = sorted(_heard(before)) if fits else None
    except SplitError:
        heard = None
    content = {key: value for key, value in content.items() if key != "hash"} | {"heard_before": heard}
    return {**content, "hash": _hash(content)}


def read_manifest(path: str | Path) -> dict:
    """What `manifest` or `continued` gave, from a file.

    Raises:
        LeakError: it was altered.
        SplitError: it is no manifest.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SplitError(f"{path} cannot be read as a split manifest: {error}") from error
    wanted = {"kind", "speaker_disjoint", "hash", *PARTS}
    if not isinstance(content, dict) or wanted - content.keys():
        raise SplitError(f"{path} is no split manifest; it must have {', '.join(sorted(wanted))}")
    if content["hash"] != _hash(content):
        raise LeakError(f"{path} was altered after it was written: its hash does not fit. Make the split anew")
    return content


def speakers_heard(path: str | Path, utterances: Sequence[Utterance], folders: Folders) -> tuple[str, set[str]]:
    """The hash of a manifest, and the speakers that a model trained on it has heard.

    A clip of a known corpus names its speaker, wherever it lies and whatever its format; others must be in the data.

    Raises:
        LeakError: the manifest was altered.
        SplitError: it is no manifest; or the model heard clips that name nobody and are not among `utterances`, some of
            which come from a folder as well: nobody can tell then who was heard.
    """
    content = read_manifest(path)
    speaker_of = {_id(utterance, folders): utterance.speaker for utterance in utterances}
    clips = _heard(content)
    heard = {speaker_of.get(clip) or named_speaker(clip) for clip in clips} - {None}
    lost = {clip for clip in clips if named_speaker(clip) is None} - speaker_of.keys()
    if lost and (not heard or any(named_speaker(utterance.path) is None for utterance in utterances)):
        raise SplitError(
            f"{len(lost)} clips that the model was trained on name no speaker and are not in the data; nobody can tell "
            "whom it heard"
        )
    return content["hash"], heard


def _finish(
    utterances: Sequence[Utterance],
    parts: Sequence[str],
    kind: str,
    seed: int | None,
    labels: Sequence[str] | None = None,
) -> Split:
    """The checked split in which utterance i belongs to parts[i]; with `labels`, each must be trained on."""
    train, validation, test = (tuple(index for index, part in enumerate(parts) if part == name) for name in PARTS)
    disjoint = is_speaker_disjoint(utterances, train + validation, test)
    split = Split(train, validation, test, kind, disjoint, seed)
    check_split(split, utterances)
    if labels and (untrained := set(labels) - {labels[index] for index in split.train}):
        raise SplitError(
            f"no utterance to train on is left for {_some(untrained)}: "
            + ("mend the split column" if kind == "column" else "try another seed, name the speakers")
            + ", or drop or merge these labels"
        )
    return split


def _refuse_unnamed(utterances: Sequence[Utterance]) -> None:
    if unknown := [utterance for utterance in utterances if not utterance.speaker_known]:
        raise SplitError(
            f"{len(unknown)} utterances name no speaker, the first is {unknown[0].path}: whether a split is "
            "speaker-disjoint cannot be checked. Give a speaker column, or ask for a random split"
        )


def _takes_by_label(
    utterances: Sequence[Utterance], labels: Sequence[str], indices: Sequence[int], rng: random.Random
) -> dict[str, list[list[int]]]:
    """For each label its takes in random order, a take being the indices that share a recording."""
    takes = defaultdict(list)
    for index in indices:
        takes[utterances[index].recording].append(index)
    by_label = defaultdict(list)
    for recording in sorted(takes):  # sorted: the draw depends on the seed, not on where the files lie
        by_label[labels[takes[recording][0]]].append(takes[recording])
    for label in sorted(by_label):
        rng.shuffle(by_label[label])
    return dict(sorted(by_label.items()))


def _draw(takes: dict[str, list[list[int]]], count: int, rng: random.Random) -> list[int]:
    """Take about `count` indices out of `takes`, the same share of each label; a take too large for the rest stays."""
    quotas = _apportion(count, {label: sum(map(len, group)) for label, group in takes.items()}, rng)
    drawn = []
    for label, group in takes.items():
        left, staying = quotas[label], []
        for take in group:
            if len(take) <= left:
                drawn += take
                left -= len(take)
            else:
                staying.append(take)
        takes[label] = staying
    return drawn


def _apportion(count: int, sizes: Mapping[Hashable, int], rng: random.Random) -> dict[Hashable, int]:
    """`count` shared out in proportion to `sizes` by largest remainder (Hamilton's method), ties by lot."""
    total = sum(sizes.values())
    shares = {key: count * size // total for key, size in sizes.items()}
    keys = list(sizes)
    rng.shuffle(keys)
    keys.sort(key=lambda key: -(count * sizes[key] % total))
    for key in keys[: count - sum(shares.values())]:
        shares[key] += 1
    return shares


def _speaker_parts(
    utterances: Sequence[Utterance], labels: Sequence[str], test: Amount, validation: Amount, seed: int
) -> list[str]:
    """The part of each utterance, speakers whole; see `speaker_split`."""
    by_corpus, labels_of = _speakers_of(utterances, labels)
    amounts = {"test": test, "validation": validation}
    part_of = _named_speakers(amounts, {speaker for speakers in by_corpus.values() for speaker in speakers})
    for speakers in by_corpus.values():
        rng = random.Random(seed)  # anew, so that one corpus does not change the draw in the next
        free = {speaker: speakers[speaker] for speaker in sorted(speakers) if speaker not in part_of}
        counts = {part: _count(amount, len(speakers)) for part, amount in amounts.items()}
        if sum(counts.values()) >= len(free):
            continue
        part_of |= _draw_speakers(free, counts, labels_of, rng)
    return [part_of.get(utterance.speaker, "train") for utterance in utterances]


def _speakers_of(
    utterances: Sequence[Utterance], labels: Sequence[str]
) -> tuple[dict[str, dict[str, str | None]], dict[str, set[str]]]:
    """Corpus -> speaker -> sex, and speaker -> labels."""
    by_corpus: dict[str, dict[str, str | None]] = defaultdict(dict)
    labels_of: dict[str, set[str]] = defaultdict(set)
    for utterance, label in zip(utterances, labels, strict=True):
        by_corpus[utterance.corpus][utterance.speaker] = utterance.sex
        labels_of[utterance.speaker].add(label)
    return by_corpus, labels_of


def _named_speakers(amounts: Mapping[str, Amount], known: Collection[str]) -> dict[str, str]:
    """Speaker -> part for those that are listed by id."""
    part_of: dict[str, str] = {}
    for part, speakers in amounts.items():
        if isinstance(speakers, float | int):
            continue
        if isinstance(speakers, str) or not speakers:
            raise SplitError(f"{part} must be a share, a number or a list of speaker ids; got {speakers!r}")
        for speaker in speakers:
            if speaker not in known:
                raise SplitError(f"{part} speaker {speaker!r} is not in the data{nearest(speaker, known)}")
            if part_of.setdefault(speaker, part) != part:
                raise SplitError(f"speaker {speaker!r} is asked for in {part_of[speaker]} and in {part}")
    return part_of


def _count(amount: Amount, speakers: int) -> int:
    """How many of a corpus's speakers to draw; none where they are listed by id."""
    if isinstance(amount, float):
        if not 0 < amount < 1:
            raise SplitError(f"a share of the speakers must lie between 0 and 1; got {amount}")
        return round(amount * speakers)
    if isinstance(amount, int):
        if amount < 1:
            raise SplitError(f"a number of speakers must be at least 1; got {amount}")
        return amount
    return 0


def _draw_speakers(
    sexes: Mapping[str, str | None],
    counts: Mapping[Hashable, int],
    labels_of: Mapping[str, set[str]],
    rng: random.Random,
) -> dict[str, Hashable]:
    """Speaker -> part for so many of the speakers in `sexes`: the first draw that leaves no part without a label.

    Where there is none, as few as possible are without: first of all the rest, which trains.
    """

    def draw() -> dict[str, Hashable]:
        part_of, left = {}, dict(sexes)
        for part, count in counts.items():
            for speaker in _pick(left, count, rng):
                part_of[speaker] = part
                del left[speaker]
        return part_of

    def lacking(part_of: Mapping[str, Hashable]) -> tuple[int, int]:
        labels_in = {part: set() for part in ("train", *counts) if counts.get(part) != 0}
        for speaker in sexes:
            labels_in[part_of.get(speaker, "train")] |= labels_of[speaker]
        missing = {part: len(set().union(*labels_in.values()) - labels) for part, labels in labels_in.items()}
        return missing["train"], sum(missing.values())

    best = draw()
    for _ in range(MORE_DRAWS):
        if not any(lacking(best)):
            break
        best = min(best, draw(), key=lacking)
    return best


def _pick(sexes: Mapping[str, str | None], count: int, rng: random.Random) -> list[str]:
    """`count` of the speakers in `sexes`, each sex in proportion."""
    pools = defaultdict(list)
    for speaker, sex in sexes.items():
        pools[sex].append(speaker)
    quotas = _apportion(count, {sex: len(pool) for sex, pool in pools.items()}, rng)
    return [speaker for sex, pool in pools.items() for speaker in rng.sample(pool, quotas[sex])]


def _assign(parts: list[str], indices: Sequence[int], part: str) -> None:
    for index in indices:
        parts[index] = part


def _check_labels(utterances: Sequence[Utterance], labels: Sequence[str]) -> None:
    if len(labels) != len(utterances):
        raise SplitError(f"{len(utterances)} utterances but {len(labels)} labels")
    if None in labels:
        raise SplitError("some labels are None: leave out the utterances that the label scheme drops, then split")


def _check_indices(split: Split, utterances: int) -> None:
    for part in PARTS:
        clips = getattr(split, part)
        if split.kind == "all" and part != "train":
            if clips:
                raise LeakError(f"{part} holds {len(clips)} clips of a split that trains on all")
        elif not clips:
            raise LeakError(f"{part} is empty: ask for more, name its speakers, or add data that can spare them")
    used = [index for part in PARTS for index in getattr(split, part)]
    counts = defaultdict(int)
    for index in used:
        counts[index] += 1
    if outside := [index for index in counts if not 0 <= index < utterances]:
        raise LeakError(f"{len(outside)} indices beyond the {utterances} utterances: {_some(outside)}")
    if doubled := [index for index, count in counts.items() if count > 1]:
        raise LeakError(f"{len(doubled)} utterances are used twice: {_some(doubled)}")
    if lost := set(range(utterances)) - counts.keys():
        raise LeakError(f"{len(lost)} utterances are in no part: {_some(lost)}")


def _refuse_shared(
    split: Split, values: Sequence[str], what: str, allowed: Collection[str] = (), remedy: str = ""
) -> None:
    """Raise LeakError when one of the utterances' `values` stands in two parts, unless it is among `allowed`."""
    first: dict[str, str] = {}
    shared = defaultdict(set)
    for part in PARTS:
        for index in getattr(split, part):
            value = values[index]
            if first.setdefault(value, part) != part and value not in allowed:
                shared[value] |= {first[value], part}
    if shared:
        shown = _some(f"{value} (in {' and '.join(sorted(parts))})" for value, parts in shared.items())
        raise LeakError(f"{len(shared)} {what}{'s' * (len(shared) > 1)} in more than one part: {shown}{remedy}")


def _speakers(utterances: Sequence[Utterance], indices: Sequence[int]) -> set[str]:
    return {utterances[index].speaker for index in indices}


def _some(values, count: int = 3) -> str:
    """The first few values, and how many more there are."""
    values = sorted(values)
    more = f" and {len(values) - count} more" if len(values) > count else ""
    return ", ".join(map(str, values[:count])) + more


def _id(utterance: Utterance, folders: Folders) -> str:
    return f"{utterance.corpus}/{relative_path(utterance.path, folders)}"


def _hash(content: Mapping) -> str:
    content = {key: value for key, value in content.items() if key != "hash"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _heard(content: Mapping) -> set[str]:
    """Ids of all that a model trained on this split has heard, its base models included."""
    before = content.get("heard_before", [])
    if before is None:
        raise SplitError("it started from a model of which nobody can tell whom it heard")
    return {*content["train"], *content["validation"], *before}
