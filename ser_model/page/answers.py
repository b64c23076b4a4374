"""What a prediction looks and reads like, in any tab: one sentence, some advice, bars."""

from collections import Counter
from collections.abc import Sequence
from html import escape

from .texts import Say, Texts

EMOJI = {
    "neutral": "😐",
    "calm": "😌",
    "happy": "😄",
    "sad": "😢",
    "angry": "😠",
    "fearful": "😨",
    "disgust": "🤢",
    "surprised": "😲",
}
NO_CLIP, RUNNING, UNREADABLE = "no_clip", "running", "unreadable"  # beside the states of `Prediction`


def emoji(label: str | None) -> str:
    """ "female_angry" -> 😠; a label of one's own, or none, has a neutral sign."""
    return EMOJI.get((label or "").rpartition("_")[2], "🎙️" if label else "🤔")


def percent(say: Say, share: float) -> str:
    """0.46 -> "46%", spaced as the language spaces it."""
    return say("page.percent", number=f"{100 * share:.0f}")


def whole_percent(confidence: float, threshold: float) -> str:
    """0.676 -> "68", or "67" where the threshold is 0.68: what is below it does not look as if it were not."""
    rounded = round(100 * confidence)
    return str(rounded - 1 if confidence < threshold <= rounded / 100 else rounded)


def decimal(say: Say, number: float, digits: int) -> str:
    """7.25 -> "7.2", with the language's decimal mark."""
    return f"{number:.{digits}f}".replace(".", say("page.decimal_mark"))


def clock(seconds: float) -> str:
    """75.3 -> "1:15", 3675 -> "1:01:15"."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def state(prediction, threshold: float) -> str:
    """The group of sentences for a prediction: its status, or "unsure" below the threshold (0 to 1)."""
    return "unsure" if prediction.label is not None and prediction.confidence < threshold else prediction.status


def sentences(texts: Texts, say: Say, prediction, threshold: float) -> tuple[str, str]:
    """What is said about a prediction, and the advice with it."""
    values = {"duration": decimal(say, prediction.duration_s, 1), "speech": decimal(say, prediction.speech_s, 1)}
    if prediction.label is not None:
        values["emotion"] = texts.emotion(say, prediction.label)
        values["confidence"] = whole_percent(prediction.confidence, threshold)
    key = f"states.{state(prediction, threshold)}"
    return say(f"{key}.said", **values), say(f"{key}.advice", **values)


def answer_html(texts: Texts, say: Say, prediction, threshold: float, course_below: bool = False) -> str:
    """Emoji, sentence and advice.

    Args:
        course_below: whether the page shows below how the emotion changes over time.
    """
    label, kind = prediction.label, state(prediction, threshold)
    said, advice = sentences(texts, say, prediction, threshold)
    if shares := sure_shares(prediction, threshold):  # of which an average over all would say little
        label, kind = next(iter(shares)), "voice"
        said = changing(texts, say, shares)
        advice = say("states.changing.advice") if course_below else sentences(texts, say, prediction, 0.0)[1]
    reason = prediction.message if prediction.status == UNREADABLE else ""
    cautions = [caution_sentence(say, caution) for caution in prediction.warnings]
    return sentence_html(emoji(label), said, advice, kind, reason, cautions)


def sure_shares(prediction, threshold: float) -> dict[str, float]:
    """Where segments of several emotions follow each other, the shares of the speech that surely sound like each, the
    largest first; elsewhere nothing.
    """
    if len(prediction.windows) < 2:
        return {}
    from ..timeline import segments

    parts = segments(prediction)
    if len({part.emotion for part in parts}) < 2:
        return {}
    lengths_s = Counter()
    for part in parts:
        if part.confidence >= threshold:
            lengths_s[part.emotion] += part.end_s - part.start_s
    total_s = sum(part.end_s - part.start_s for part in parts)
    return {label: length_s / total_s for label, length_s in lengths_s.most_common()}


def changing(texts: Texts, say: Say, shares: dict[str, float]) -> str:
    """The sentence for `sure_shares`."""
    (first, share), *others = ((texts.emotion(say, label), share) for label, share in shares.items())
    values = {"emotion": first, "share": percent(say, share)}
    if others:
        return say("states.changing.said", **values, other=others[0][0])
    return say("states.changing.else_unsure", **values)


def segment_words(texts: Texts, say: Say, label: str, confidence: float, threshold: float) -> str:
    """ "angry", or below the threshold "not sure (most like angry)"."""
    name = texts.emotion(say, label)
    return name if confidence >= threshold else say("states.unsure.short", emotion=name)


def caution_sentence(say: Say, caution) -> str:
    """What may have made an answer worse."""
    values = {"heard": clock(caution.values["heard_s"])} if "heard_s" in caution.values else {}
    return say(f"warnings.{caution.code}", **values)


def sentence_html(
    emoji: str, said: str, advice: str = "", kind: str = "hint", reason: str = "", cautions: Sequence[str] = ()
) -> str:
    """One place for every answer, which screen readers announce; the emoji only repeats what the sentence says.

    Args:
        reason: what the program reported, in English.
        cautions: sentences on what may have made the answer worse.
    """
    warnings = "".join(f'<p class="warning">⚠️ {escape(caution)}</p>' for caution in cautions)
    return (
        f'<div class="answer announced {kind}"><span class="emoji" aria-hidden="true">{emoji}</span>'
        f'<div><p class="said">{escape(said)}</p><p class="heard">{escape(advice)}</p>'
        f'<p class="reason" lang="en">{escape(reason)}</p>{warnings}</div></div>'
    )


def no_microphone_html(say: Say) -> str:
    """What to do where the browser refuses to record."""
    return sentence_html("⚠️", say("page.no_microphone.said"), say("page.no_microphone.advice"))


def bars_html(texts: Texts, say: Say, scores: dict[str, float]) -> str:
    """A bar for every emotion; number and name stand beside it, so that nothing hangs on colour or length."""
    if not scores:
        return ""
    rows = "".join(
        f'<dt><span class="emoji" aria-hidden="true">{emoji(label)}</span> {escape(texts.emotion(say, label))}</dt>'
        f'<dd><span class="bar" aria-hidden="true"><i style="--share: {score:.4f}"></i></span>'
        f'<span class="number">{percent(say, score)}</span></dd>'
        for label, score in scores.items()
    )
    return f'<dl class="bars" aria-label="{escape(say("try.scores"))}">{rows}</dl>'
