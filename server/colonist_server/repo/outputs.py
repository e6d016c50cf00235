"""What ended processes left for their children, the lately used ones in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final

from colonist_server.repo import keys, render
from colonist_server.repo.records import decode_closed
from colonist_server.repo.writes import Writes

LIMIT_BYTES: Final = 32 * 1_048_576

_OVERHEAD_BYTES: Final = 200


class Outputs:
    """Outputs by process, each a JSON array as text."""

    __slots__ = ("_bytes", "_cache", "_writes")

    def __init__(self, writes: Writes) -> None:
        self._writes = writes
        self._bytes = 0
        self._cache: OrderedDict[bytes, bytes] = OrderedDict()

    def remember(self, pid: bytes, out: bytes) -> None:
        """Keep an output, and let go of the least used ones."""
        if pid in self._cache or len(out) > LIMIT_BYTES // 8:
            return
        self._cache[pid] = out
        self._bytes += len(out) + _OVERHEAD_BYTES
        while self._bytes > LIMIT_BYTES:
            _, oldest = self._cache.popitem(last=False)
            self._bytes -= len(oldest) + _OVERHEAD_BYTES

    async def joined(self, pids: Sequence[bytes]) -> bytes:
        """The outputs of several ended processes as one array, in order (section 4.7)."""
        found = await self.of_many(pids)
        return join(found[pid] for pid in pids)

    async def of_many(self, pids: Iterable[bytes]) -> dict[bytes, bytes]:
        """The outputs of ended processes; `[]` for one that left none, or was removed."""
        found: dict[bytes, bytes] = {}
        missing: list[bytes] = []
        for pid in dict.fromkeys(pids):
            out = self._cache.get(pid)
            if out is None:
                missing.append(pid)
            else:
                self._cache.move_to_end(pid)
                found[pid] = out
        if missing:
            found.update(await self._read(missing))
        return found

    async def _read(self, pids: Sequence[bytes]) -> dict[bytes, bytes]:
        items = await self._writes.read_many([keys.closed(pid) for pid in pids])
        earlier = await self._writes.read_many([keys.output(pid) for pid in pids])
        read: dict[bytes, bytes] = {}
        for pid, item, output in zip(pids, items, earlier, strict=True):
            out = render.result(decode_closed(item.value)) if item is not None else render.NO_OUTPUT
            if render.is_empty(out) and item is not None and output is not None:
                out = output.value
            read[pid] = out
            if item is not None:
                self.remember(pid, out)
        return read


def join(outputs: Iterable[bytes]) -> bytes:
    """JSON arrays one after the other, as one."""
    inner = (out.strip()[1:-1].strip() for out in outputs)
    return b"[" + b",".join(text for text in inner if text) + b"]"
