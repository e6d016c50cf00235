"""What is left of a removed process: the end of its chain, so that nobody takes it for a gap."""

from __future__ import annotations

from collections.abc import Mapping

from colonist_core.attempt import winner
from colonist_core.process import MILLISECOND_NS, Cause, Closed, Live
from colonist_protocol.identity import digest
from colonist_server.repo import keys
from colonist_server.repo.records import RemovedRecord, encode
from colonist_server.repo.writes import ATTEMPTS, Writes
from colonist_server.store.interface import Guard, Put


def trace(pid: bytes, last: Live | Closed, cause: Cause, now_ns: int) -> Put:
    """To be written in the commit that removes a process; `last` is how it ended, or was."""
    live = last.live if isinstance(last, Closed) else last
    won = winner(live)
    record = RemovedRecord(
        n=live.count,
        attempt=live.attempt,
        time_ms=max(now_ns, live.changed_ns) // MILLISECOND_NS,
        prev=live.head,
        who=bytes.fromhex(cause.who),
        digest=cause.digest,
        signature=cause.signature,
        winner=won,
        result=digest(last.payload) if won is not None and isinstance(last, Closed) else b"",
    )
    return Put(keys.removed(pid), encode(record))


async def leave(writes: Writes, ends: Mapping[bytes, Closed], cause: Cause, now_ns: int) -> None:
    """Write the traces of some processes that are about to be deleted, where there are none."""
    for _ in range(ATTEMPTS):
        items = await writes.past.read_many([keys.removed(pid) for pid in ends])
        missing = [pid for pid, item in zip(ends, items, strict=True) if item is None]
        puts = [trace(pid, ends[pid], cause, now_ns) for pid in missing]
        if not puts or await writes.commit([Guard(put.key, 0) for put in puts], puts):
            return
