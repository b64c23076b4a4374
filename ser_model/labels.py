"""Emotions and label schemes: from what a corpus says to the classes a model learns."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from unicodedata import normalize

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
SEXES = ("female", "male")
SURE_CONFIDENCE = 0.5  # with less in a label, the answer is "not sure": as likely as not, it is another

_SEVEN = tuple(emotion for emotion in EMOTIONS if emotion != "calm")
_CALM_IS_NEUTRAL = {"calm": "neutral"}  # calm is RAVDESS's alone, and its listeners took it for neutral
# base -> emotions in class order, merges, whether each emotion is split by sex
_BASES = {
    "8": (EMOTIONS, {}, False),
    "7": (_SEVEN, _CALM_IS_NEUTRAL, False),
    "14": (_SEVEN, _CALM_IS_NEUTRAL, True),
}
_KEYS = ("base", "names", "drop", "merge", "keep")


class LabelError(ValueError):
    """A label scheme that makes no sense, or an utterance that it cannot place."""


@dataclass(frozen=True)
class LabelScheme:
    """Which class an utterance belongs to; made by `label_scheme`.

    `names` maps class index to name and becomes `config.id2label`. `classes` maps each emotion that the scheme knows to
    its class, or to None where it is dropped; with `by_sex` the class is "<sex>_<that>", if `names` has it.
    """

    names: tuple[str, ...]
    classes: Mapping[str, str | None] = field(hash=False)
    by_sex: bool = False

    def label(self, utterance) -> str | None:
        """The class name of an `Utterance` (its emotion, sex and path are read); None when the scheme drops it.

        Raises LabelError when the scheme does not know the emotion, or needs a sex that the corpus does not give.
        """
        emotion = utterance.emotion
        if emotion not in self.classes:
            raise LabelError(
                f"{utterance.path}: the label scheme does not know {emotion!r}{nearest(emotion, self.classes)}; "
                f"known: {', '.join(sorted(self.classes))}. Rename it, or list it under names, merge or drop"
            )
        name = self.classes[emotion]
        if name is None or not self.by_sex:
            return name
        if utterance.sex not in SEXES:
            raise LabelError(
                f"{utterance.path}: this label scheme splits classes by sex, and the speaker's is "
                f"{utterance.sex!r}; give it as one of {', '.join(SEXES)}, or take scheme 7 or 8"
            )
        name = f"{utterance.sex}_{name}"
        return name if name in self.names else None

    def classes_of(self, emotion: str) -> list[str]:
        """What utterances of this emotion count as; none where the scheme drops or does not know it."""
        name = self.classes.get(emotion)
        possible = [f"{sex}_{name}" for sex in SEXES] if self.by_sex else [name]
        return [name for name in possible if name in self.names]

    def description(self) -> str:
        """What the scheme drops and merges, for the run's print and the model card; empty when nothing."""
        merged = [f"{label} counted as {name}" for label, name in self.classes.items() if name not in (None, label)]
        dropped = [f"{label} dropped" for label, name in self.classes.items() if name is None]
        if self.by_sex:
            halves = [f"{sex}_{name}" for name in dict.fromkeys(self.classes.values()) if name for sex in SEXES]
            dropped += [f"{half} dropped" for half in halves if half not in self.names]
        return "; ".join(merged + dropped)


def label_scheme(spec: int | str | Mapping) -> LabelScheme:
    """The label scheme that a config asks for.

    `spec` is 8 (all of EMOTIONS), 7 (calm counted as neutral), 14 (sex x 7: "female_angry"), or a mapping with either
    `base: 8 | 7 | 14` (8 when absent) or free `names: [a, b]` for `folder` data, and any of `merge: {calm: neutral}`,
    `drop: [sad]`, `keep: [happy, angry]`. Merges come first; `drop` and `keep` name what is left after them, with base
    14 an emotion or a class ("female_angry").

    Raises LabelError for an unknown key, base or emotion, with the nearest valid name.
    """
    if not isinstance(spec, Mapping):
        spec = {"base": spec}
    _refuse_unknown(spec, _KEYS, "label scheme key")
    if "names" in spec:
        return _free_scheme(spec)
    emotions, base_merges, by_sex = _base(spec.get("base", 8))
    merge = _merges(spec)
    _refuse_unknown([*merge, *merge.values()], emotions, "emotion")
    kept = [emotion for emotion in emotions if emotion not in merge]
    emotion_of = {f"{sex}_{name}": name for sex in SEXES for name in kept} if by_sex else {name: name for name in kept}
    names = _left(spec, emotion_of)
    dropped = set(kept) - {emotion_of[name] for name in names}
    classes = {emotion: base_merges.get(emotion, emotion) for emotion in EMOTIONS}
    classes = {emotion: merge.get(name, name) for emotion, name in classes.items()}
    return _scheme(names, classes, dropped, by_sex)


def composed(label: object) -> str:
    """A label in the one form in which equal letters are equal: macOS takes "ä" apart in names of folders."""
    return normalize("NFC", str(label))


def nearest(name: object, known: Iterable[str]) -> str:
    """ "; did you mean 'x'?" for the nearest known name, else an empty string.

    As `configuration_ser.did_you_mean`, which travels with a model and whose module loads Transformers.
    """
    close = get_close_matches(str(name), list(known), n=1, cutoff=0.5)  # 0.5 still finds "happiness" for "happy"
    return f"; did you mean {close[0]!r}?" if close else ""


def _free_scheme(spec: Mapping) -> LabelScheme:
    """Free labels: names are the classes, merge brings other labels to them, drop names labels to leave out."""
    if clash := [key for key in ("base", "keep") if key in spec]:
        raise LabelError(f"names already lists the classes; remove {' and '.join(clash)}")
    names = _list(spec, "names")
    if not names or len(set(names)) < len(names):
        raise LabelError(f"names must list each class once, and at least one; got {names}")
    merge = _merges(spec)
    _refuse_unknown(merge.values(), names, "class")
    dropped = _list(spec, "drop")
    if both := [name for name in (*merge, *dropped) if name in names] + [name for name in dropped if name in merge]:
        raise LabelError(f"{', '.join(both)}: named in more than one of names, merge and drop; choose one")
    return _scheme(names, {name: name for name in (*names, *dropped)} | merge, dropped, by_sex=False)


def _scheme(names: Sequence[str], classes: Mapping[str, str], dropped: Collection[str], by_sex: bool) -> LabelScheme:
    if len(names) < 2:
        raise LabelError(f"a label scheme needs at least two classes; this one leaves {list(names)}")
    classes = {label: None if name in dropped else name for label, name in classes.items()}
    return LabelScheme(tuple(names), classes, by_sex)


def _base(base: int | str) -> tuple[tuple[str, ...], dict[str, str], bool]:
    if str(base) not in _BASES:
        known = f"{', '.join(_BASES)}, or a mapping with {', '.join(_KEYS)}"
        raise LabelError(f"unknown label scheme {base!r}; known: {known}")
    return _BASES[str(base)]


def _merges(spec: Mapping) -> dict[str, str]:
    merge = spec.get("merge") or {}
    if not isinstance(merge, Mapping):
        raise LabelError(f"merge must be a mapping such as {{calm: neutral}}; got {merge!r}")
    merge = {composed(label): name for label, name in merge.items()}
    for label, name in merge.items():
        if isinstance(name, list | Mapping):
            raise LabelError(f"merge counts a label as one class, such as {{calm: neutral}}; got {label}: {name!r}")
        merge[label] = composed(name)
    if chained := sorted(set(merge) & set(merge.values())):
        raise LabelError(f"{', '.join(chained)}: merged away and merged into at once; give each its final class")
    return merge


def _left(spec: Mapping, emotion_of: Mapping[str, str]) -> list[str]:
    """The classes that `drop` or `keep` leave, of those in `emotion_of`; both name classes, or emotions as a whole."""
    drop, keep = _list(spec, "drop"), _list(spec, "keep")
    if drop and keep:
        raise LabelError("give drop or keep, not both")
    named = {*drop, *keep}
    _refuse_unknown([*drop, *keep], list(dict.fromkeys([*emotion_of.values(), *emotion_of])), "class (after merging)")
    return [name for name, emotion in emotion_of.items() if bool(named & {name, emotion}) == bool(keep)]


def _list(spec: Mapping, key: str) -> list[str]:
    values = spec.get(key) or []
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise LabelError(f"{key} must be a list such as [happy, sad]; got {values!r}")
    return [composed(value) for value in values]


def _refuse_unknown(given: Iterable[object], known: Sequence[str], what: str) -> None:
    for name in given:
        if name not in known:
            raise LabelError(f"unknown {what} {name!r}{nearest(name, known)}; known: {', '.join(known)}")
