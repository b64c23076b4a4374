"""Many visitors at once through the page's HTTP API: how fast, how many are turned away, whose answer it was.

Each visitor sends a recording of a length of its own, and knows its answer by that length.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import psutil

from ser_model.audio import load_audio

from .page import PATIENCE_S, answer_among, memory_mib
from .recordings import with_soundfile
from .report import Part

VISITORS, SECONDS = (1, 8, 32, 128), 60.0
REQUESTS_FOR_MEMORY = 5000
MARK_S = 0.01  # two visitors' recordings differ by at least so much
BUSY = ("full", "busy", "many")  # words of an answer that turns a visitor away


@dataclass
class Tally:
    """What happened to all visitors together."""

    latencies_s: list[float] = field(default_factory=list)
    turned_away: int = 0
    strangers: int = 0  # answers that belong to somebody else
    errors: Counter = field(default_factory=Counter)
    memory_mib: list[tuple[int, float]] = field(default_factory=list)  # (requests answered, resident memory)


def run(url: str, server: psutil.Process, clip: Path, short: bool = False) -> Iterator[Part]:
    """`server` is the process behind `url`, `clip` a recording of one voice of about 4 s."""
    sound = load_audio(clip)
    seconds = 3.0 if short else SECONDS
    rows, problems = [], []
    for visitors in VISITORS[:2] if short else VISITORS:
        tally = asyncio.run(visit(url, sound, visitors, seconds, server))
        rows.append((f"{visitors} at once", described(tally, seconds)))
        problems += [f"{visitors} at once: {tally.strangers} answers went to another visitor"] * bool(tally.strangers)
        problems += [f"{visitors} at once: {count} x {error}" for error, count in tally.errors.items()]
        if not asyncio.run(visit(url, sound, 1, 0.0, server)).latencies_s:
            problems.append(f"after {visitors} at once nobody is answered any more")
    yield Part(f"Visitors at once, {seconds:.0f} s each, a recording of {len(sound) / 16_000:.1f} s", rows, problems)
    yield memory(url, server, sound, 60 if short else REQUESTS_FOR_MEMORY)


def memory(url: str, server: psutil.Process, sound: np.ndarray, requests: int) -> Part:
    tally = asyncio.run(visit(url, sound, 4, float("inf"), server, requests))
    answered, used_mib = np.array(tally.memory_mib[len(tally.memory_mib) // 10 :]).T  # the first tenth warms up
    slope = np.polyfit(answered, used_mib, 1)[0] * 1000
    rows = [("resident memory at the start and the end", f"{used_mib[0]:.0f} and {used_mib[-1]:.0f} MiB")]
    rows.append(("slope", f"{slope:+.1f} MiB in 1000 requests"))
    problems = [f"{count} x {error}" for error, count in tally.errors.items()]
    return Part(f"Memory over {requests} requests", rows, problems)


def described(tally: Tally, seconds: float) -> str:
    if not tally.latencies_s:
        return "no answer"
    middle, high, highest = np.percentile(tally.latencies_s, [50, 95, 99])
    peak_mib = max(used for _, used in tally.memory_mib)
    return (
        f"{len(tally.latencies_s) / seconds:.1f} answers/s; {middle:.2f} s in the middle, 95 % within {high:.2f} s, "
        f"99 % within {highest:.2f} s; {tally.turned_away} turned away, {sum(tally.errors.values())} errors; "
        f"{peak_mib:.0f} MiB at most"
    )


async def visit(
    url: str,
    sound: np.ndarray,
    visitors: int,
    seconds: float,
    server: psutil.Process,
    requests: int | None = None,
    marked: bool = True,
) -> Tally:
    """Every visitor asks again as soon as it is answered, until the time is over or so many were asked in all.

    `marked` says whether the server tells how long a recording is: one of ours does.
    """
    tally, until_s, asked = Tally(), time.monotonic() + seconds, iter(range(requests or 10**9))
    limits = httpx.Limits(max_connections=None, keepalive_expiry=2.0)  # the server closes what idles for 5 s
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S, limits=limits) as client:

        async def one(number: int) -> None:
            own = sound[: len(sound) - round(number * MARK_S * 16_000)]
            content = with_soundfile(own, 16_000, subtype="PCM_16")
            while next(asked, None) is not None:
                await ask(client, f"visitor {number}.wav", content, len(own) / 16_000 if marked else None, tally)
                tally.memory_mib.append((len(tally.latencies_s), memory_mib(server)))
                if time.monotonic() >= until_s:
                    return

        await asyncio.gather(*map(one, range(visitors)))
    return tally


async def ask(client: httpx.AsyncClient, name: str, content: bytes, duration_s: float | None, tally: Tally) -> None:
    started_s = time.monotonic()
    try:
        answer = await answer_among(client, name, content)
    except httpx.HTTPError as error:
        tally.errors[type(error).__name__] += 1
        return
    if isinstance(answer, str):
        if any(word in answer.lower() for word in BUSY):
            tally.turned_away += 1
            await asyncio.sleep(0.5)  # as a polite client does
        else:
            tally.errors[answer[:80]] += 1
        return
    tally.latencies_s.append(time.monotonic() - started_s)
    tally.strangers += duration_s is not None and abs(answer["duration_s"] - duration_s) > MARK_S / 2
