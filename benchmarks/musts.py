"""What must be reached, and what the reference (the Go/PostgreSQL peer, same work) reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Must:
    """A bound on one metric of one row."""

    row: str
    metric: str
    kind: Literal["at least", "at most"]
    bound: float
    reference: str

    def is_met(self, value: float) -> bool:
        """Whether a value keeps the bound."""
        return value >= self.bound if self.kind == "at least" else value <= self.bound

    @property
    def text(self) -> str:
        """The bound as people read it."""
        sign = ">=" if self.kind == "at least" else "<="
        return f"{sign} {self.bound:g}"


MUSTS = (
    Must("lifecycle/16", "rate_s", "at least", 2500, "225"),
    Must("lifecycle/64", "rate_s", "at least", 2500, "231"),
    Must("submit/16", "rate_s", "at least", 4000, "1119"),
    Must("packs/waiting", "rate_s", "at least", 3000, ""),
    Must("packs/firing", "rate_s", "at least", 3000, ""),
    Must("crons/1000", "late_p99_ms", "at most", 50, "up to 2000"),
    Must("crons/idle", "idle_cpu_s", "at most", 0.1, ""),
    Must("roundtrip/handover", "p50_ms", "at most", 1.5, "4.8"),
    Must("roundtrip/circle", "p50_ms", "at most", 1.5, ""),
    Must("drain/50000:100", "ratio", "at least", 0.9, "0.10"),
    Must("parked/1000", "idle_cpu_s", "at most", 0.5, "3.3"),
    Must("parked/1000", "rss_kb_each", "at most", 20, "65"),
    Must("parked/10000", "rss_kb_each", "at most", 20, "65"),
    Must("wakeups/colonies/in-turn", "waits_over_50ms", "at most", 0, "10 of 20"),
    Must("wakeups/colonies/at-once", "waits_over_50ms", "at most", 0, ""),
    Must("wakeups/names/in-turn", "waits_over_50ms", "at most", 0, "11 of 12"),
    Must("wakeups/names/at-once", "waits_over_50ms", "at most", 0, ""),
    Must("connections/storm", "answered", "at least", 1000, "deadlock"),
    Must("connections/burst", "answered", "at least", 1000, "deadlock"),
    Must("workflows/wide-1000", "ratio", "at least", 0.8, ""),
    Must("workflows/chain-100", "p50_ms", "at most", 3.0, ""),
    Must("subscribers/1000", "last_p99_ms", "at most", 100, ""),
    Must("subscribers/1000", "missing", "at most", 0, ""),
    *(
        Must(f"flood/{face}", metric, "at least", bound, "")
        for face in ("mixed", "kept", "new", "strangers")
        for metric, bound in (("ratio", 0.8), ("bad_s", 1_650))
    ),
    Must("sealed/16", "ratio", "at least", 0.85, ""),
    Must("sealed/64", "ratio", "at least", 0.85, ""),
    Must("audit/verify", "rate_s", "at least", 20_000, ""),
    Must("etcd/lifecycle-16", "rate_s", "at least", 1800, ""),
    Must("etcd/lifecycle-64", "rate_s", "at least", 1800, ""),
    Must("etcd/handover", "p50_ms", "at most", 2.5, ""),
    Must("etcd/circle", "p50_ms", "at most", 2.5, ""),
    Must("etcd/two-nodes", "ratio", "at least", 1.0, ""),
    Must("etcd/two-nodes", "conflicts_percent", "at most", 5.0, ""),
    Must("etcd/restart-100000", "ready_s", "at most", 5.0, ""),
    Must("etcd/restart-100000", "bytes_each", "at most", 1536, ""),
    Must("coldstart/health", "first_answer_s", "at most", 1.0, "0.54"),
    Must("coldstart/signed", "first_answer_s", "at most", 1.0, ""),
)

# The metric that stands for a row without a must.
SHOWN = {
    "audit": "rate_s",
    "drain": "rate_s",
    "headroom": "rate_s",
    "kinds": "rate_s",
    "parked": "all_ms",
    "coldstart": "first_answer_s",
    "workflows": "run_ms_each",
}


def of_row(row: str) -> list[Must]:
    """The bounds of a row."""
    return [must for must in MUSTS if must.row == row]
