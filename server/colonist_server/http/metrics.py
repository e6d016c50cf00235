"""`GET /metrics`: figures of this node in the text format of Prometheus.

No figure names a colony, an executor or anything else that a stranger should not learn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final, NamedTuple

Figures = Callable[[], Mapping[str, float]]
"""What is known now, by name; what is not known is left out."""

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Kind(StrEnum):
    """How a figure behaves."""

    GAUGE = "gauge"
    COUNTER = "counter"


class Metric(NamedTuple):
    """One figure, as it is told."""

    name: str
    kind: Kind
    help: str


METRICS: Final = (
    Metric("colonist_store_size_bytes", Kind.GAUGE, "Size of the store's file"),
    Metric("colonist_store_size_in_use_bytes", Kind.GAUGE, "What of it holds data"),
    Metric("colonist_store_quota_bytes", Kind.GAUGE, "Size at which etcd refuses writes"),
    Metric("colonist_store_alarm", Kind.GAUGE, "1 while the store raises an alarm such as NOSPACE"),
    Metric(
        "colonist_watch_behind_seconds", Kind.GAUGE, "How far this node's view is behind the store"
    ),
    Metric("colonist_is_leader", Kind.GAUGE, "1 while this node runs the loops of all"),
    Metric("colonist_parked", Kind.GAUGE, "Executors that wait for work at this node"),
    Metric("colonist_waiting", Kind.GAUGE, "Processes that an executor could take"),
    Metric("colonist_running", Kind.GAUGE, "Processes that executors have"),
    Metric(
        "colonist_assign_conflicts_total",
        Kind.COUNTER,
        "Assignments lost to a change by somebody else",
    ),
    Metric("colonist_grants_total", Kind.COUNTER, "Assignments that this node committed"),
    Metric(
        "colonist_refused_early_total",
        Kind.COUNTER,
        "Requests that no member signed, refused before anything was made for them",
    ),
    Metric(
        "colonist_refused_strangers_total",
        Kind.COUNTER,
        "Requests not looked into because strangers had sent too many",
    ),
    Metric(
        "colonist_slow_heads_total",
        Kind.COUNTER,
        "Connections closed because the head of a request did not come in time",
    ),
    Metric(
        "colonist_slow_readers_total",
        Kind.COUNTER,
        "Connections cut off because they did not take what they were sent",
    ),
    Metric("colonist_limited_rate_total", Kind.COUNTER, "Requests beyond an identity's rate"),
    Metric(
        "colonist_limited_requests_total",
        Kind.COUNTER,
        "Requests beyond those that an identity may have under way",
    ),
    Metric(
        "colonist_limited_polls_total",
        Kind.COUNTER,
        "Assigns beyond those that an executor or a colony may have under way",
    ),
    Metric(
        "colonist_limited_waiting_total",
        Kind.COUNTER,
        "Requests beyond the processes that may wait in a colony",
    ),
    Metric("colonist_limited_sizes_total", Kind.COUNTER, "Requests over the limit of their size"),
)


def render(values: Mapping[str, float]) -> str:
    """The text of what is known; a figure that no metric describes is not told."""
    told = [_lines(metric, values[metric.name]) for metric in METRICS if metric.name in values]
    return "".join(told)


def _lines(metric: Metric, value: float) -> str:
    return (
        f"# HELP {metric.name} {metric.help}.\n"
        f"# TYPE {metric.name} {metric.kind}\n"
        f"{metric.name} {_number(value)}\n"
    )


def _number(value: float) -> str:
    if math.isfinite(value) and value == int(value):
        return str(int(value))
    return {math.inf: "+Inf", -math.inf: "-Inf"}.get(
        value, repr(float(value)).replace("nan", "NaN")
    )
