"""What ended processes left for their children, the lately used ones in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final

from colonist_server.repo import keys, render
from colonist_server.repo.budget import Budget
from colonist_server.repo.past import Reads
from colonist_server.repo.records import decode_closed
from colonist_server.repo.writes import Writes

LIMIT_BYTES: Final = 32 * 1_048_576
MAX_JOINED_BYTES: Final = 8 * 1_048_576
"""What all inputs of one reply may be, taken together: outputs of the parents of what it shows."""

_OVERHEAD_BYTES: Final = 200
_BY_ATTEMPT: Final = b"\x00"
"""No JSON begins so."""
_PLACE_BYTES: Final = 9
_AT_ONCE: Final = 64
"""Ends that are read together: each may be large."""


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

    async def joined(self, pids: Sequence[bytes], room: Budget, *, is_past: bool) -> bytes | None:
        """The outputs of several ended processes as one array, in order (section 4.7).

        `[]` stands for one that left none, or was removed. None when there is no room for
        them: little more than that is read, and nothing if it is known already. `is_past`: they
        may be in the archive.
        """
        if not room.has(sum(len(self._cache.get(pid, b"")) for pid in pids)):
            room.spend()
            return None
        source = self._writes.past if is_past else self._writes
        found: list[bytes] = []
        for start in range(0, len(pids), _AT_ONCE):
            part = await self._some(pids[start : start + _AT_ONCE], source)
            if not room.takes(sum(map(len, part))):
                return None
            found += part
        return _join(found)

    async def _some(self, pids: Sequence[bytes], source: Reads) -> list[bytes]:
        found: dict[bytes, bytes] = {}
        for pid in pids:
            out = self._cache.get(pid)
            if out is not None:
                self._cache.move_to_end(pid)
                found[pid] = out
        missing = [pid for pid in pids if pid not in found]
        if missing:
            found.update(await self._read(missing, source))
        return [found[pid] for pid in pids]

    async def _read(self, pids: Sequence[bytes], source: Reads) -> dict[bytes, bytes]:
        items = await source.read_many([keys.closed(pid) for pid in pids])
        earlier = await source.read_many([keys.output(pid) for pid in pids])
        read: dict[bytes, bytes] = {}
        for pid, item, output in zip(pids, items, earlier, strict=True):
            out = render.result(decode_closed(item.value)) if item is not None else render.NO_OUTPUT
            if render.is_empty(out) and item is not None and output is not None:
                out = text_of(output.value)
            read[pid] = out
            if item is not None:
                self.remember(pid, out)
        return read


def packed(place: tuple[int, int], out: bytes) -> bytes:
    """An output as it is stored, with the attempt and the request that it came by."""
    number, seq = place
    return _BY_ATTEMPT + number.to_bytes(4, "big") + seq.to_bytes(4, "big") + out


def text_of(value: bytes) -> bytes:
    """The JSON in what is stored."""
    return value[_PLACE_BYTES:] if value.startswith(_BY_ATTEMPT) else value


def place_of(value: bytes) -> tuple[int, int]:
    """Attempt and request that it came by; 0 and 0: by a plain one."""
    if not value.startswith(_BY_ATTEMPT):
        return 0, 0
    return int.from_bytes(value[1:5], "big"), int.from_bytes(value[5:_PLACE_BYTES], "big")


def _join(outputs: Iterable[bytes]) -> bytes:
    """JSON arrays one after the other, as one."""
    inner = (out.strip()[1:-1].strip() for out in outputs)
    return b"[" + b",".join(text for text in inner if text) + b"]"
