"""The events of a process: the latest stand in its record, older ones in keys of their own.

So a process that is tried again and again does not grow, and each step writes about as much as the
one before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from colonist_core.lease import Flag
from colonist_core.process import Live
from colonist_server.repo import keys
from colonist_server.repo.nouns import Row
from colonist_server.repo.records import encode
from colonist_server.store.interface import DeleteRange, Op, Put

KEPT: Final = 8


def rewrite(pid: bytes, live: Live) -> Sequence[Op]:
    """Write a live record; when it holds more than `KEPT` events, the oldest of them move out."""
    key = keys.live(pid)
    if len(live.events) <= KEPT:
        return (Put(key, encode(live)),)
    moved, kept = live.events[:KEPT], live.events[KEPT:]
    return (
        Put(key, encode(msgspec.structs.replace(live, events=kept))),
        Put(keys.events(pid, _first(live)), encode(moved)),
    )


def forget(pid: bytes, live: Live) -> Sequence[Op]:
    """Delete what stands beside the record: older events, and what is remembered of attempts."""
    ops: list[Op] = [DeleteRange(prefix) for prefix in ranges(pid, live)]
    if live.flags & Flag.MARKED:
        ops.append(DeleteRange(keys.marks_of(pid)))
    return ops


def ranges(pid: bytes, live: Live) -> Sequence[bytes]:
    """Where events stand that moved out, and results that are evidence only."""
    found = [keys.events_of(pid)] if _first(live) > 1 else []
    return [*found, keys.results_of(pid)] if live.flags & Flag.MARKED else found


def _first(live: Live) -> int:
    """The number of the first event in the record; the birth has number 0 and stands elsewhere."""
    return live.count - len(live.events)


def noted(row: Row, live: Live) -> list[Op]:
    """Let the record of a process say that attributes or an output are stored beside it.

    Other nodes read, close and remove it too, and would not look for what they do not know of.
    """
    if live.has_more:
        return []
    return [Put(keys.live(row.pid), encode(msgspec.structs.replace(live, has_more=True)))]
