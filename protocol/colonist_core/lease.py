"""How long an attempt may run: what the server promises, and when each side acts on it.

The *end* of a lease is `start + (k + 1) * maxexectime`, by the server's clock, after k renewals. A
reply shows what is left of it, and the executor counts that from when it first sent the request.

**Overlap.** With `overlap: never` no two attempts run at once as long as every clock runs at 0.9 to
1.1 times the true speed. Let a reply be made at the true time r, showing L seconds left.

- The executor stops when its clock has counted `STOP` * L = 0.9 L since it sent the request, which
  was before r. Its clock runs at 0.9 at least, so that is at r + 0.9 L / 0.9 = r + L at the latest.
- The server gives the process to nobody else before its clock has counted 1.1 L since r. Its clock
  runs at 1.1 at most, so that is at r + 1.1 L / 1.1 = r + L at the earliest.

`requeue_ns` keeps the second part for every reply made since a grant or a renewal at time g, when M
was left: it is g + 1.1 M, and a later reply at r shows L = M - (r - g), for which r + 1.1 L is
earlier. Replies made before g are kept too, since a renewal never moves it back.

**Nodes.** Where nodes share a store, one may have written the end, another tells what is left, and
a third takes the process back. Let all their clocks lie in a span A: each shows R + d, where R runs
as above and d is in 0 to A.

- A reply at r shows L = end - R(r) - d at most end - R(r). So the executor stops before the true
  time at which R shows R(r) + 1.1 L <= 1.1 end - 0.1 R(r) <= 1.1 end - 0.1 g + 0.1 A, since R(r) is
  not before the true time of the grant or renewal, at which the clock that wrote g showed R + d.
- Who takes it back hears of the record, which says c for the time of its last change, when R shows
  c - A at least. It counts from there how long the deadline, 1.1 end - 0.1 g, was at c, and `apart`
  of A, which is 1.1 A: so R shows 1.1 end - 0.1 g + 0.1 A by then, or more. A record that it loads
  it takes to be written by a clock that is d ahead of R as well: the same holds.

**Steps.** What was counted from a grant or a renewal is not counted anew by a clock that was set:
neither when it is taken back (a lease that was counted is never cut) nor what is told: no more than
is sure to be over before it is taken back (`told_s`).

What an executor cannot count (a sleep in which its clock stood, a reboot, work that a bridge held)
it must not guess: it goes on only after the reply to a renewal.
"""

from __future__ import annotations

from typing import Final

from colonist_protocol.times import SECOND_NS

MAX_LIMIT_S: Final = 100 * 366 * 86_400
"""A century: what is beyond has no end that anybody sees, and times must fit into 64 bits."""
MAX_RENEWALS: Final = 1_000
"""How often an attempt may be prolonged where its spec does not say."""
STOP: Final = 0.9
"""At this part of what it was told an executor stops where no two may run at once."""
MARGIN: Final = 10
"""One part in so many is what the server waits longer."""


class Flag:
    """What else is to be known of a live process, as bits. The first two are its spec's.

    Plain numbers: an `IntFlag` takes a microsecond for each look.
    """

    REJECTS_LATE: Final = 1
    NEVER_OVERLAPS: Final = 2
    CONFIRMED: Final = 4
    """The executor of its newest attempt has sent a sealed request about it."""
    MARKED: Final = 8
    """Results or log lines are remembered beside it, each by its attempt."""


OF_SPEC: Final = Flag.REJECTS_LATE | Flag.NEVER_OVERLAPS


def period_ns(limit_s: int) -> int:
    """What one grant or renewal is worth; 0: there is no limit."""
    return min(limit_s, MAX_LIMIT_S) * SECOND_NS if limit_s > 0 else 0


def end_ns(started_ns: int, limit_s: int, renewed: int) -> int:
    """Until when an attempt may run, as replies tell it; 0: for ever."""
    period = period_ns(limit_s)
    return started_ns + (renewed + 1) * period if period else 0


def requeue_ns(end: int, now_ns: int, flags: int) -> int:
    """When the process is taken from an attempt whose lease, told now, ends then."""
    if not (end and flags & Flag.NEVER_OVERLAPS):
        return end
    return end + -(-max(0, end - now_ns) // MARGIN)


def apart(span: float) -> float:
    """How much longer it takes where the clocks of those who tell and take lie in such a span."""
    return span + span / MARGIN


def most_renewals(started_ns: int, limit_s: int, now_ns: int) -> int:
    """How many an attempt may have by now: a period more than what went by, whole ones counted."""
    return 1 + max(0, now_ns - started_ns) // period_ns(limit_s)


def left_s(end: int, now_ns: int) -> float:
    """What a reply tells, in seconds, rounded down to milliseconds."""
    return max(0, end - now_ns) // 1_000_000 / 1000


def told_s(left: float, held: float, flags: int) -> float:
    """What a reply tells, of which so much is left, where it is not taken back for so long."""
    sure = held / apart(1.0) if flags & Flag.NEVER_OVERLAPS else held
    return min(left, int(max(0.0, sure) * 1000) / 1000)


def stop_after_s(lease_s: float, *, never_overlaps: bool) -> float:
    """How long an executor may work, from when it first sent what the reply answers."""
    return lease_s * STOP if never_overlaps else lease_s
