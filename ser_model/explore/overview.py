"""The sections on the data as a whole. Their numbers come from file names and from the inspection; no sound is read."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import yaml

from ..corpora.base import relative_path
from ..splits import PARTS
from .findings import Clip, Findings, config_lines, covering_length_s, in_order
from .page import ROWS_SHOWN, Draw, Picture, Section, Table
from .pictures import heat_map, histogram, ranges, stacked_bars

SHARES = {"80 %": 0.80, "95 %": 0.95}
SPEAKERS_SHOWN, EMOTIONS_SHOWN, LEFT_OUT_SHOWN = 60, 12, 20


def overview_sections(findings: Findings, draw: Draw) -> list[Section]:
    """From the counts to the split."""
    return [
        counts_section(findings, draw),
        lengths_section(findings, draw),
        loudness_section(findings, draw),
        balance_section(findings, draw),
        split_section(findings, draw),
    ]


def summary(findings: Findings) -> dict[str, str | int | float]:
    """What the page's head tells."""
    clips = findings.clips
    return {
        "clips in use": len(clips),
        "left out": len(findings.problems),
        "hours": _hours(clips),
        "speakers": len({clip.utterance.speaker for clip in clips if clip.utterance.speaker_known}) or "unknown",
        "corpora": len({clip.utterance.corpus for clip in clips}),
        "labels": len(findings.scheme.names),
        "split": findings.settings.split.kind,
    }


def counts_section(findings: Findings, draw: Draw) -> Section:
    clips, scheme = findings.clips, findings.scheme
    named = [clip.utterance for clip in clips] + findings.dropped
    before_scheme = Counter((utterance.emotion, utterance.corpus) for utterance in named)
    corpora = sorted({corpus for _, corpus in before_scheme})
    emotions = in_order({emotion for emotion, _ in before_scheme})
    emotion_rows = []
    for emotion in emotions:
        counts = [before_scheme[emotion, corpus] for corpus in corpora]
        label = " or ".join(scheme.classes_of(emotion)) or "left out"
        emotion_rows.append([emotion, label, *counts, sum(counts)])
    keys: dict[str, Callable[[Clip], str]] = {
        "corpus": lambda clip: clip.utterance.corpus,
        "emotion": lambda clip: clip.utterance.emotion,
        "label": lambda clip: clip.label,
        "sex": lambda clip: clip.utterance.sex or "unknown",
        "channel": lambda clip: clip.utterance.channel,
    }
    count_rows = []
    for by, key in keys.items():
        for name, group in _grouped(clips, key).items():
            speakers = speaker_count(group)
            count_rows.append([by, name, len(group), speakers, _hours(group), _percent(len(group), len(clips))])

    def picture(by: str, names: Sequence[str], counts: Mapping, caption: str) -> Picture:
        alt = f"Bars: clips of each {by}, by corpus; the numbers are in the tables"
        return draw(f"counts_by_{by}", stacked_bars(names, corpora, counts), alt, caption)

    labels, sexes = (Counter((keys[by](clip), clip.utterance.corpus) for clip in clips) for by in ("label", "sex"))
    pictures = [picture("emotion", emotions, before_scheme, "Clips of each emotion, before the label scheme.")]
    if labels != before_scheme:
        pictures.append(picture("label", scheme.names, labels, "Clips of each label, after the label scheme."))
    pictures.append(picture("sex", sorted({sex for sex, _ in sexes}), sexes, "Clips by the speaker's sex."))
    says = scheme.description() or "nothing dropped or merged"
    columns = ["emotion", "label", *corpora, "all"]
    return Section(
        "Counts",
        [*findings.notes, f"Label scheme: {says}."],
        pictures=pictures,
        tables=[
            Table("emotions", "Emotions and the labels they become", columns, emotion_rows),
            Table("counts", "Counts", ["by", "name", "clips", "speakers", "hours", "percent"], count_rows, shown=60),
        ],
        hidden=[_clips_table(findings)],
    )


def lengths_section(findings: Findings, draw: Draw) -> Section:
    clips = findings.clips
    lines = {name: config_lines(findings, share) for name, share in SHARES.items()}
    lengths_s = {name: covering_length_s(clips, share) for name, share in SHARES.items()}
    coverage = [
        [name, round(lengths_s[name], 2), line["training"]["max_frames"], line["features"]["sampling_rate"]]
        for name, line in lines.items()
    ]
    durations_s = {corpus: [clip.sound.duration_s for clip in group] for corpus, group in _by_corpus(clips).items()}
    length_rows = [
        [corpus, *(round(float(value), 2) for value in np.percentile(values, (0, 5, 50, 95, 100)))]
        for corpus, values in durations_s.items()
    ]
    longest_s = max(map(max, durations_s.values()))
    limit_s = min(longest_s, 2 * max(lengths_s.values()))  # one long clip must not squeeze all others into one bar
    beyond = f" The last bar holds all up to {longest_s:.1f} s." if limit_s < longest_s else ""
    rates = Counter((clip.sound.sampling_rate, clip.utterance.corpus) for clip in clips)
    rate_rows, reached = [], 0
    for rate in sorted({rate for rate, _ in rates}, reverse=True):
        count = sum(rates[rate, corpus] for corpus in durations_s)
        reached += count
        rate_rows.append([rate, count, _percent(count, len(clips)), _percent(reached, len(clips))])
    text = [
        "A clip is covered when it is no longer than max_frames and was recorded at the sampling rate or above, so "
        "that nothing is cropped and no empty band is heard. Nearly all energy of speech lies below 8 kHz: more "
        "than 16 kHz costs more than it brings."
    ]
    if findings.extractor.trim_db:
        text.append("Lengths are those of the files. The config trims silent ends, so fewer frames will do.")
    return Section(
        "Length and sampling rate",
        [*text, "Lines for the config, to go into the sections of these names:"],
        code="\n\n".join(f"# {name} of the clips\n{as_yaml(line)}" for name, line in lines.items()),
        pictures=[
            draw(
                "durations",
                histogram(durations_s, "seconds", [(value, name) for name, value in lengths_s.items()], limit_s),
                "Histogram of the lengths; the numbers are in the table of lengths",
                f"Lengths of the files, and those that cover 80 and 95 % of them.{beyond}",
            ),
            draw(
                "sampling_rates",
                stacked_bars([rate for rate, *_ in rate_rows], list(durations_s), rates),
                "Bars: clips at each sampling rate; the numbers are in the table of sampling rates",
                "Sampling rates of the files, in Hz.",
            ),
        ],
        tables=[
            Table("coverage", "What covers the data", ["share", "length in s", "max_frames", "rate in Hz"], coverage),
            Table("durations", "Lengths in s", ["corpus", "shortest", "5 %", "median", "95 %", "longest"], length_rows),
            Table("sampling_rates", "Sampling rates", ["Hz", "clips", "percent", "percent at or above"], rate_rows),
        ],
    )


def loudness_section(findings: Findings, draw: Draw) -> Section:
    by_corpus = _by_corpus(findings.clips)
    emotions = _grouped(findings.clips, lambda clip: clip.utterance.emotion)
    emotions = {emotion: emotions[emotion] for emotion in in_order(emotions)}
    rows = []
    for by, groups in (("corpus", by_corpus), ("emotion", emotions)):
        for name, group in groups.items():
            low, middle, high = np.percentile(_loudness(group), (5, 50, 95))
            peak = max(clip.sound.peak for clip in group)
            rows.append([by, name, *(round(float(value), 1) for value in (low, middle, high)), round(peak, 3)])
    shown = dict(list(emotions.items())[:EMOTIONS_SHOWN])
    return Section(
        "Loudness",
        [
            "Mean level of each file in decibels of full scale, pauses included. Where corpora differ much, the level "
            "tells them apart, and a model may learn that in place of emotion; features with level: relative do not "
            "hear it."
        ],
        pictures=[
            draw(
                "loudness",
                histogram({corpus: _loudness(group) for corpus, group in by_corpus.items()}, "dB of full scale"),
                "Histogram of the loudness, by corpus; the numbers are in the table of loudness",
                "Loudness of the files.",
            ),
            draw(
                "loudness_by_emotion",
                ranges({emotion: _loudness(group) for emotion, group in shown.items()}, "dB of full scale"),
                "Ranges of the loudness of each emotion; the numbers are in the table of loudness",
                "Loudness of each emotion: lines from 5 to 95 % of the clips, bars from 25 to 75 %, strokes at half.",
            ),
        ],
        tables=[
            Table("loudness", "Loudness in dB of full scale", ["by", "name", "5 %", "median", "95 %", "peak"], rows)
        ],
    )


def balance_section(findings: Findings, draw: Draw) -> Section:
    title, clips = "Balance of speakers", [clip for clip in findings.clips if clip.utterance.speaker_known]
    text = []
    if unknown := len(findings.clips) - len(clips):
        text.append(f"{unknown} clips name no speaker.")
    if not clips:
        return Section(title, text)
    counts = Counter((clip.utterance.speaker, clip.utterance.emotion) for clip in clips)
    totals = Counter(clip.utterance.speaker for clip in clips)
    said = {clip.utterance.speaker: clip.utterance for clip in clips}
    emotions = in_order({emotion for _, emotion in counts})
    rows = [
        [name, said[name].corpus, said[name].sex or "unknown", totals[name], *(counts[name, each] for each in emotions)]
        for name in sorted(totals)
    ]
    text.append(f"{len(rows)} speakers with {min(totals.values())} to {max(totals.values())} clips each.")
    shown = sorted(name for name, _ in totals.most_common(SPEAKERS_SHOWN))
    columns = emotions[:EMOTIONS_SHOWN]
    caption = "Clips of each speaker in each emotion."
    if len(shown) < len(rows) or len(columns) < len(emotions):
        caption += f" The {len(shown)} speakers with most clips and {len(columns)} emotions; all are in speakers.csv."
    matrix = np.array([[counts[name, emotion] for emotion in columns] for name in shown])
    return Section(
        title,
        text,
        pictures=[
            draw(
                "speakers",
                heat_map(shown, columns, matrix),
                "Map: clips of each speaker in each emotion; the numbers stand in its fields",
                caption,
            )
        ],
        hidden=[Table("speakers", "Speakers", ["speaker", "corpus", "sex", "clips", *emotions], rows)],
    )


def speaker_count(clips: Sequence[Clip]) -> int | str:
    """How many speakers are named; "unknown" where some clip names none."""
    known = all(clip.utterance.speaker_known for clip in clips)
    return len({clip.utterance.speaker for clip in clips}) if known else "unknown"


def split_section(findings: Findings, draw: Draw) -> Section:
    split, labels = findings.split, findings.scheme.names
    if split is None:
        return Section("Split", [f"The split that the config asks for cannot be made: {findings.split_error}"])
    counts = Counter((clip.label, clip.part) for clip in findings.clips)
    rows, text = [], []
    for part in PARTS:
        clips = [clip for clip in findings.clips if clip.part == part]
        speakers = sorted({clip.utterance.speaker for clip in clips if clip.utterance.speaker_known})
        rows.append([part, len(clips), _percent(len(clips), len(findings.clips)), speaker_count(clips)])
        rows[-1] += [counts[label, part] for label in labels]
        more = f" and {len(speakers) - ROWS_SHOWN} more" if len(speakers) > ROWS_SHOWN else ""
        text += [f"Speakers of {part}: {', '.join(speakers[:ROWS_SHOWN])}{more}."] if speakers else []
    says = "Speaker-disjoint: nobody in the test part is heard in training"
    if not split.speaker_disjoint:
        says = "Not speaker-disjoint: test speakers are heard in training, or unknown; it says little of a new voice"
    return Section(
        "Split",
        [f"Kind: {split.kind}. {says}. Seed {split.seed}, hash {findings.split_hash[:12]}.", *text],
        pictures=[
            draw(
                "split",
                stacked_bars(labels, PARTS, counts),
                "Bars: clips of each label, by part; the numbers are in the table of parts",
                "Clips of each label, by part.",
            )
        ],
        tables=[Table("split", "Parts", ["part", "clips", "percent", "speakers", *labels], rows)],
    )


def left_out_section(findings: Findings) -> Section:
    """What is not used, and what is used with a doubt."""
    kinds = Counter(problem.kind for problem in findings.problems)
    text = [f"{', '.join(f'{count} {kind}' for kind, count in kinds.most_common()) or 'Nothing was left out'}."]
    if findings.dropped:
        text.append(f"Beside these, {len(findings.dropped)} clips have an emotion that the label scheme drops.")
    rows = [
        [relative_path(problem.path, findings.folders), problem.corpus, problem.reason] for problem in findings.problems
    ]
    warnings = [
        [relative_path(clip.utterance.path, findings.folders), clip.utterance.corpus, clip.sound.warning]
        for clip in findings.clips
        if clip.sound.warning
    ]
    columns = ["path", "corpus", "reason"]
    return Section(
        "Left out",
        text,
        tables=[
            Table("left_out", "Left out, and why", columns, rows, LEFT_OUT_SHOWN),
            Table("warnings", "Used in spite of a fault", columns, warnings, LEFT_OUT_SHOWN),
        ],
    )


def _clips_table(findings: Findings) -> Table:
    columns = ["path", "corpus", "speaker", "sex", "emotion", "label", "part"]
    columns += ["duration_s", "sampling_rate", "channels", "peak", "loudness_db"]
    rows = []
    for clip in findings.clips:
        said, sound = clip.utterance, clip.sound
        row = [relative_path(said.path, findings.folders), said.corpus, said.speaker, said.sex, said.emotion]
        row += [clip.label, clip.part, round(sound.duration_s, 4), sound.sampling_rate, sound.channels]
        rows.append(row + [round(sound.peak, 4), round(sound.loudness_db, 2)])
    return Table("clips", "Clips", columns, rows)


def as_yaml(lines: Mapping[str, Mapping]) -> str:
    """One line a section, as configs/*.yaml write it."""
    dumped = {
        section: yaml.safe_dump(dict(values), default_flow_style=True, sort_keys=False, width=1000).strip()
        for section, values in lines.items()
    }
    return "\n".join(f"{section}: {values}" for section, values in dumped.items())


def _grouped(clips: Iterable[Clip], key: Callable[[Clip], str]) -> dict[str, list[Clip]]:
    groups: dict[str, list[Clip]] = {}
    for clip in clips:
        groups.setdefault(key(clip), []).append(clip)
    return dict(sorted(groups.items()))


def _by_corpus(clips: Iterable[Clip]) -> dict[str, list[Clip]]:
    return _grouped(clips, lambda clip: clip.utterance.corpus)


def _loudness(clips: Iterable[Clip]) -> list[float]:
    return [clip.sound.loudness_db for clip in clips]


def _hours(clips: Iterable[Clip]) -> float:
    return round(sum(clip.sound.duration_s for clip in clips) / 3600, 2)


def _percent(count: int, total: int) -> float:
    return round(100 * count / total, 1)
