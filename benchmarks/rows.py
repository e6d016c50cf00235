"""Rows of results: one run gives metrics, several runs give medians with their spread."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one run of one benchmark found. Metric names end in their unit."""

    name: str
    metrics: dict[str, float]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """One metric over the runs."""

    median: float
    min: float
    max: float
    runs: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One benchmark over its runs."""

    name: str
    metrics: dict[str, Spread]
    notes: tuple[str, ...] = ()
    disturbed_runs: int = 0
    extra: dict[str, Any] = field(default_factory=dict)


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest rank: a value that was really measured."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def latencies(prefix: str, seconds: Sequence[float]) -> dict[str, float]:
    """p50, p90, p99 and the worst, in milliseconds."""
    return {
        f"{prefix}p50_ms": percentile(seconds, 50) * 1000,
        f"{prefix}p90_ms": percentile(seconds, 90) * 1000,
        f"{prefix}p99_ms": percentile(seconds, 99) * 1000,
        f"{prefix}max_ms": percentile(seconds, 100) * 1000,
    }


def summarise(runs: Sequence[Sequence[Row]], disturbed: Sequence[bool]) -> list[Summary]:
    """Medians over the runs, row by row, in the order of the first run."""
    found: list[Summary] = []
    for first in runs[0]:
        same = [row for rows in runs for row in rows if row.name == first.name]
        names = dict.fromkeys(name for row in same for name in row.metrics)
        found.append(
            Summary(
                name=first.name,
                metrics={name: _spread([row.metrics[name] for row in same]) for name in names},
                notes=tuple(dict.fromkeys(note for row in same for note in row.notes)),
                disturbed_runs=sum(disturbed),
            )
        )
    return found


def _spread(values: list[float]) -> Spread:
    runs = tuple(round(value, 4) for value in values)
    return Spread(
        median=round(statistics.median(values), 4), min=min(runs), max=max(runs), runs=runs
    )
