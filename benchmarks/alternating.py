"""Peers side by side: in turn, many times, in one process, so that whatever slows the machine slows all of them."""

import gc
import os
import statistics
import time
from collections.abc import Callable, Mapping

import torch


def milliseconds(
    candidates: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 2
) -> dict[str, list[float]]:
    """Milliseconds of each call, by candidate; those of the first `warm_up` rounds are thrown away."""
    measured = {name: [] for name in candidates}
    for number in range(warm_up + rounds):
        for name, call in candidates.items():
            gc.collect()  # nobody pays for what another left
            before = time.perf_counter()
            call()
            if number >= warm_up:
                measured[name].append(1000 * (time.perf_counter() - before))
    return measured


def table(measured: Mapping[str, list[float]], ours: str, unit: str = "ms") -> str:
    """Median and spread (the middle half) of each, and how many times slower than ours it is, round by round."""
    lines = [f"| | {unit}, median | middle half | times ours |", "| --- | --- | --- | --- |"]
    for name, values in measured.items():
        low, _, high = statistics.quantiles(values, n=4)
        ratio = statistics.median(theirs / own for theirs, own in zip(values, measured[ours], strict=True))
        lines.append(f"| {name} | {statistics.median(values):.2f} | {low:.2f} to {high:.2f} | {ratio:.2f} |")
    return "\n".join(lines)


def machine() -> str:
    """What a table was measured on."""
    return f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}"
