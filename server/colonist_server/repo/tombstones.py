"""What is left of objects that were derived from sealed requests, and are not where they were made.

Such an object is the record of its request. So whoever removes it, or moves it while it is young,
leaves a record in its place: the same bytes must not make it anew. Older ones are looked for in the
archive before anything is made; of what nobody can present any more nothing is left.
"""

from __future__ import annotations

import msgspec

from colonist_core.process import Cause
from colonist_protocol import codec, digests
from colonist_protocol.seal import EpochSeal
from colonist_protocol.tokens import read_epoch
from colonist_server.repo import keys
from colonist_server.repo.once import STORED_MINUTES, Mark, key_of
from colonist_server.repo.records import Birth, WorkflowRecord
from colonist_server.store.interface import Op, Put

_SEALS = msgspec.json.Decoder(EpochSeal)


def of_removed_process(pid: bytes, birth: Birth | None, n: int) -> list[Op]:
    """What a process leaves that is removed in minute `n`."""
    return _left(_mark_of_birth(pid, birth), pid, n)


def of_removed_workflow(wid: bytes, head: WorkflowRecord, n: int) -> list[Op]:
    """What a workflow leaves that is removed in minute `n`."""
    return _left(_mark_of_head(head), wid, n)


def of_moved_process(pid: bytes, birth: Birth | None, n: int) -> list[Op]:
    """What a process leaves that is moved to the archive in minute `n`, as far as that is known."""
    mark = _mark_of_birth(pid, birth)
    return _left(mark, pid, n) if mark is not None and _is_young(mark, n) else []


def of_moved_workflow(wid: bytes, head: WorkflowRecord, n: int) -> list[Op]:
    """What a workflow leaves that is moved to the archive in minute `n`."""
    mark = _mark_of_head(head)
    return _left(mark, wid, n) if mark is not None and _is_young(mark, n) else []


def _is_young(mark: Mark, n: int) -> bool:
    return n - mark.token.n <= STORED_MINUTES


def _left(mark: Mark | None, id: bytes, n: int) -> list[Op]:
    return [Put(mark.key, id)] if mark is not None and not mark.is_forgotten(n) else []


def _mark_of_birth(pid: bytes, birth: Birth | None) -> Mark | None:
    """Of a workflow's member there is none: it goes with its workflow."""
    if birth is None or not birth.seal or keys.number_of(pid):
        return None
    payload, seal = codec.to_base64(birth.payload), codec.to_base64(birth.seal)
    digest = digests.tagged_digest(digests.REQUEST, payload, seal)
    return _mark(birth.seal, Cause(birth.initiator_id, digest))


def _mark_of_head(head: WorkflowRecord) -> Mark | None:
    if not head.seal or head.source:
        return None
    return _mark(head.seal, Cause(head.initiator_id, head.digest))


def _mark(text: bytes, cause: Cause) -> Mark | None:
    seal = _SEALS.decode(text)
    token = read_epoch(seal.epoch)
    return Mark(token, seal.ttl, key_of(cause), 0) if token is not None else None
