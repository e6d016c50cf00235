"""An export read and checked in the plainest way: for tests of what makes it."""

from __future__ import annotations

from typing import Any, NamedTuple

from colonist_protocol import audit as wire
from colonist_protocol import codec
from colonist_protocol.audit import GetAudit
from colonist_protocol.digests import REQUEST, tagged_digest
from colonist_protocol.evidence import EventLine, event_hash
from colonist_protocol.identity import Identity, digest, recover, recover_digest
from tests.support.audit_files import finished
from tests.support.audit_memory import examine
from tests.support.rooms import COLONY, COLONY_OWNER, Bench


class Entry(NamedTuple):
    line: EventLine
    request: wire.EventRequest | None


class Export:
    """The lines of an export, told apart. Refuses what is not in order."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self.header = codec.decode(lines[0].encode(), wire.Header, "")
        self.checkpoints: list[tuple[str, wire.Checkpoint]] = []
        self.chains: dict[str, list[Entry]] = {}
        last: EventLine | None = None
        for text in lines[1:]:
            tree = codec.scan(text.encode())
            if tree.get("of") == "checkpoint":
                self._sign(codec.decode(text.encode(), wire.CheckpointSignature, ""))
            elif tree.get("of") == "event":
                assert last is not None
                request = codec.decode(text.encode(), wire.EventRequest, "")
                self.chains[last.chain][-1] = Entry(last, request)
            elif "k" in tree:
                assert last is None
                self.checkpoints.append((text, codec.decode(text.encode(), wire.Checkpoint, "")))
            else:
                last = codec.decode(text.encode(), EventLine, "")
                assert codec.encode(last).decode() == text
                assert not self.chains or last.chain >= max(self.chains)
                self.chains.setdefault(last.chain, []).append(Entry(last, None))

    def _sign(self, mark: wire.CheckpointSignature) -> None:
        text, checkpoint = self.checkpoints[-1]
        assert checkpoint.k == mark.k
        assert recover(wire.checkpoint_text(text), mark.sig) == self.header.server

    def check(self, *, is_covered: bool = True) -> None:
        """All hashes and signatures; what checkpoints name is there, and all is in the last."""
        for chain, entries in self.chains.items():
            _check_chain(chain, entries)
        heads = self.heads()
        for chain, (n, hash) in heads.items():
            self._check_head(chain, n, hash)
        if is_covered:
            ends = {
                chain: (entries[-1].line.n, event_hash(entries[-1].line).hex())
                for chain, entries in self.chains.items()
            }
            assert heads == ends

    def verify(self) -> None:
        """The verifier, which knows nothing of servers, finds it sound."""
        data = finished([line.encode() for line in self.lines])
        tally, unknown, _ = examine(data, self.header.server, step=1 << 20)
        assert not unknown
        assert tally.unproven == 0

    def heads(self) -> dict[str, tuple[int, str]]:
        """The last head of each chain, after all checkpoints were checked."""
        heads: dict[str, tuple[int, str]] = {}
        before = ""
        first = self.checkpoints[0][1].k if self.checkpoints else wire.FIRST_K
        time = 0
        for k, (text, checkpoint) in enumerate(self.checkpoints, first):
            assert checkpoint.k == k
            assert checkpoint.prev == before or (k == first and k > wire.FIRST_K)
            assert codec.encode(checkpoint).decode() == text
            assert checkpoint.time >= time
            time = checkpoint.time
            before = wire.checkpoint_digest(text).hex()
            named = [chain for chain, _, _ in checkpoint.heads]
            assert named == sorted(set(named))
            assert 0 < len(named) <= wire.MAX_HEADS
            for chain, n, hash in checkpoint.heads:
                assert n >= heads.get(chain, (0, ""))[0]
                self._check_head(chain, n, hash)
                heads[chain] = n, hash
        return heads

    def _check_head(self, chain: str, n: int, hash: str) -> None:
        entries = self.chains[chain]
        first = entries[0].line.n
        if n >= first:
            assert event_hash(entries[n - first].line).hex() == hash
        else:
            assert entries[0].line.what == wire.REMOVED
            assert n < first - 1 or entries[0].line.prev == hash


def _check_chain(chain: str, entries: list[Entry]) -> None:
    first = entries[0].line
    assert first.n == 0 or (first.what == wire.REMOVED and len(entries) == 1)
    prev = first.prev
    for n, (line, request) in enumerate(entries, first.n):
        assert (line.n, line.prev) == (n, prev)
        prev = event_hash(line).hex()
        assert bool(line.who) == bool(line.req) == bool(line.sig)
        if line.sig:
            assert recover_digest(bytes.fromhex(line.req), bytes.fromhex(line.sig)) == line.who
        if request is not None:
            text = request.payload.encode()
            signed = tagged_digest(REQUEST, request.payload, request.seal)
            assert line.req == (signed if request.seal else digest(text)).hex()


async def exported(
    made: Bench, *, size: int = 0, by: Identity = COLONY_OWNER, colony: str = COLONY
) -> Export:
    """All pages of an export."""
    lines: list[str] = []
    cursor = ""
    while True:
        message = GetAudit(colonyname=colony, cursor=cursor, size=size)
        page: dict[str, Any] = await made.call(message, by)
        lines += page["lines"]
        cursor = page["cursor"]
        if not cursor:
            return Export(lines)
        assert page["lines"]
