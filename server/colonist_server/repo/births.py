"""What processes were submitted with: read once, kept in memory up to a number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from colonist_protocol import codec
from colonist_protocol.attribute import AttributeType, attribute_id
from colonist_protocol.function_spec import FunctionSpec, normal_form
from colonist_protocol.process import SubmitFunctionSpec
from colonist_server.repo import keys
from colonist_server.repo.records import AttributeRecord, Birth, decode_birth
from colonist_server.repo.writes import Writes
from colonist_server.store.interface import Item, Revision

_OVERHEAD_BYTES = 400


class Submitted(msgspec.Struct, frozen=True, gc=False):
    """A birth as replies need it: `spec` is the normal form as JSON, spliced in as it is.

    `env` holds the attributes that the spec's entries are (COLONIES-RPC section 2.9), by id.
    """

    spec: bytes
    initiator_id: str
    initiator: str
    env: tuple[tuple[str, AttributeRecord], ...] = ()


def submitted(pid: bytes, spec: FunctionSpec, initiator_id: str, initiator: str) -> Submitted:
    """From a spec in its normal form."""
    env = [
        (
            attribute_id(pid.hex(), key, AttributeType.ENV),
            AttributeRecord(AttributeType.ENV, key, value),
        )
        for key, value in spec.env.items()
    ]
    # A bytes object of its own: what an encoder returns is larger than what it holds.
    text = bytes(memoryview(codec.encode(spec)))
    return Submitted(text, initiator_id, initiator, tuple(env))


class Births:
    """Births by process, the lately used ones in memory.

    What other nodes submit comes by the watch and is kept as it is stored, until it is asked for.
    """

    __slots__ = ("_bytes", "_cache", "_heard", "_heard_bytes", "_limit_bytes", "_writes")

    def __init__(self, writes: Writes, limit_bytes: int) -> None:
        self._writes = writes
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self._cache: OrderedDict[bytes, Submitted] = OrderedDict()
        self._heard: OrderedDict[bytes, bytes] = OrderedDict()
        self._heard_bytes = 0
        if writes.store.is_shared:
            writes.view.follow(keys.BIRTH, self._hear)

    def remember(self, pid: bytes, birth: Submitted) -> None:
        """Keep a birth, and let go of the least used ones."""
        self.forget(pid)
        self._cache[pid] = birth
        self._bytes += len(birth.spec) + _OVERHEAD_BYTES
        while self._bytes > self._limit_bytes and len(self._cache) > 1:
            _, oldest = self._cache.popitem(last=False)
            self._bytes -= len(oldest.spec) + _OVERHEAD_BYTES

    def forget(self, pid: bytes) -> None:
        """Let go of a birth."""
        birth = self._cache.pop(pid, None)
        if birth is not None:
            self._bytes -= len(birth.spec) + _OVERHEAD_BYTES
        if self._heard:
            self._unhear(pid)

    def known(self, pid: bytes) -> Submitted | None:
        """The birth, if it is in memory."""
        birth = self._cache.get(pid)
        if birth is not None:
            self._cache.move_to_end(pid)
        elif pid in self._heard:
            birth = _restore(pid, decode_birth(self._heard[pid]))
            self.remember(pid, birth)
        return birth

    def _hear(self, key: bytes, value: bytes | None, _: Revision) -> None:
        """Keep what was submitted somewhere, and let go of what was heard first."""
        pid = key[len(keys.BIRTH) :]
        self._unhear(pid)
        if value is None or pid in self._cache:
            return
        self._heard[pid] = value
        self._heard_bytes += len(value) + _OVERHEAD_BYTES
        while self._heard_bytes > self._limit_bytes // 4:
            self._unhear(next(iter(self._heard)))

    def _unhear(self, pid: bytes) -> None:
        value = self._heard.pop(pid, None)
        if value is not None:
            self._heard_bytes -= len(value) + _OVERHEAD_BYTES

    async def of(self, pid: bytes, *, is_past: bool = False) -> Submitted | None:
        """The birth; None when the process was removed. `is_past`: it may be in the archive."""
        return self.known(pid) or (await self.of_many([pid], is_past=is_past))[0]

    async def of_many(
        self, pids: Sequence[bytes], *, is_past: bool = False
    ) -> list[Submitted | None]:
        """Several births, with one read for all that are not in memory."""
        source = self._writes.past if is_past else self._writes
        found = {pid: birth for pid in pids if (birth := self.known(pid)) is not None}
        missing = [pid for pid in pids if pid not in found]
        if missing:
            items = await source.read_many([keys.birth(pid) for pid in missing])
            for pid, item in zip(missing, items, strict=True):
                if item is not None:
                    found[pid] = _restore(pid, decode_birth(item.value))
                    self.remember(pid, found[pid])
        return [found.get(pid) for pid in pids]


class _Named(msgspec.Struct):
    nodename: str = ""


_NAMED = msgspec.json.Decoder(_Named)


def nodename(birth: Submitted | None) -> str:
    """What a member is called in its workflow."""
    return _NAMED.decode(birth.spec).nodename if birth is not None else ""


def env_ids(item: Item) -> list[str]:
    """The ids of the attributes that a stored birth's `env` entries are."""
    birth = _restore(item.key[len(keys.BIRTH) :], decode_birth(item.value))
    return [id for id, _ in birth.env]


def _restore(pid: bytes, birth: Birth) -> Submitted:
    if keys.number_of(pid):
        spec = codec.decode(birth.payload, FunctionSpec, "stored spec")
        return submitted(pid, spec, birth.initiator_id, birth.initiator)
    message = codec.decode(birth.payload, SubmitFunctionSpec, "stored submit")
    return submitted(pid, normal_form(message.spec), birth.initiator_id, birth.initiator)
