"""The results as people read them: must against reached."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.musts import SHOWN, Must, of_row
from benchmarks.rows import Spread, Summary

_TITLES = (
    "benchmark", "metric", "must", "reached", "min - max", "reference",
    "", "server us", "loop us", "server", "loop", "generator", "others",
)  # fmt: skip


def render(summaries: Sequence[Summary]) -> str:
    """One line per bound, and one for a row that has none."""
    lines = [_TITLES, *(line for summary in summaries for line in _lines(summary))]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_TITLES))]
    return "\n".join(_padded(line, widths) for line in lines)


def failed(summaries: Iterable[Summary]) -> list[str]:
    """Names of rows that miss a bound or had failures."""
    return [
        summary.name
        for summary in summaries
        if _failures(summary)
        or any(
            not must.is_met(summary.metrics[must.metric].median) for must in of_row(summary.name)
        )
    ]


def _lines(summary: Summary) -> Iterable[tuple[str, ...]]:
    musts = of_row(summary.name)
    for must in musts:
        yield (*_figures(summary, must.metric, must), *_costs(summary))
    if not musts or summary.name.startswith("parked"):
        shown = SHOWN.get(summary.name.partition("/")[0], next(iter(summary.metrics)))
        yield (*_figures(summary, shown, None), *_costs(summary))
    for note in summary.notes:
        yield (f"  ! {note[:100]}", *[""] * (len(_TITLES) - 1))


def _figures(summary: Summary, metric: str, must: Must | None) -> tuple[str, ...]:
    spread = summary.metrics[metric]
    verdict = ""
    if must is not None:
        verdict = "met" if must.is_met(spread.median) else "MISSED"
    if _failures(summary):
        verdict = "FAILURES"
    if summary.disturbed_runs:
        verdict += f" ({summary.disturbed_runs} disturbed)"
    return (
        summary.name,
        metric,
        must.text if must else "",
        _number(spread.median),
        f"{_number(spread.min)} - {_number(spread.max)}",
        must.reference if must else "",
        verdict,
    )


def _costs(summary: Summary) -> tuple[str, ...]:
    names = (
        "server_us_each",
        "loop_us_each",
        "server_cores",
        "loop_cores",
        "generator_cores",
        "others_cores",
    )
    return tuple(_optional(summary.metrics.get(name)) for name in names)


def _failures(summary: Summary) -> bool:
    failures = summary.metrics.get("failures")
    return failures is not None and failures.max > 0


def _optional(spread: Spread | None) -> str:
    return "" if spread is None else _number(spread.median)


def _number(value: float) -> str:
    if abs(value) >= 100 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.2f}"


def _padded(line: tuple[str, ...], widths: list[int]) -> str:
    if line[0].startswith("  ! "):
        return line[0]
    return "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
