"""A process as it was at one change of its state, so that it can be shown when somebody has time.

One event of a process is one moment: a hand-over writes a birth and an assignment in one put, and
makes two. An event that leaves the state as it is makes none. A member of a workflow is not free to
run because it was submitted: its first WAITING comes when its parents are done
(`Subscriptions.member_released`).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from colonist_core.process import TRANSITIONS, Closed, Live, What, deadline
from colonist_protocol.process import State
from colonist_server.repo import keys
from colonist_server.repo.nouns import Colony, Row
from colonist_server.repo.records import decode_closed

_SILENT: Final = frozenset(
    what for state, row in TRANSITIONS.items() for what, after in row.items() if after is state
)
_WID_BYTES: Final = keys.PID_BYTES - 4
_LONE: Final = bytes(4)


class Moment(NamedTuple):
    """What is to be shown. `has_attributes` and `has_output` say what else must be read for it."""

    colony: Colony
    pid: bytes
    live: Live
    closed: Closed | None = None
    has_attributes: bool = False
    has_output: bool = False


def entered(pid: bytes, live: Live, *, is_born: bool) -> list[Live]:
    """The process in each state that a put of its live record entered, oldest first."""
    if not is_born:
        is_silent = bool(live.events) and What(live.events[-1].what) in _SILENT
        return [] if is_silent else [live]
    found = [] if pid[_WID_BYTES:] != _LONE else [_as_born(live)]
    if live.count > 1:
        found.append(live)
    return found


def of_live(colony: Colony, pid: bytes, live: Live, row: Row | None) -> Moment:
    """A process that had not ended. `row` may be newer; before a first attempt nothing is set."""
    if row is not None:
        return Moment(colony, pid, live, None, row.has_attributes, row.has_output)
    was_tried = live.attempt > 1 or (live.attempt == 1 and live.state == State.WAITING)
    return Moment(colony, pid, live, None, was_tried, was_tried)


def of_row(row: Row) -> Moment:
    """A process that has not ended, as it is now."""
    return of_live(row.colony, row.pid, row.live(), row)


def of_closed(colony: Colony, pid: bytes, value: bytes) -> Moment:
    """A process that has ended, as it is stored."""
    closed = decode_closed(value)
    return Moment(colony, pid, closed.live, closed, closed.has_attributes, closed.has_output)


def _as_born(live: Live) -> Live:
    if live.count == 1:
        return live
    return msgspec.structs.replace(
        live,
        state=State.WAITING,
        changed_ns=live.submitted_ns,
        started_ns=0,
        deadline_ns=deadline(live.submitted_ns, live.max_wait_s),
        retries=0,
        attempt=0,
        executor="",
        node="",
        count=1,
        events=(),
    )
