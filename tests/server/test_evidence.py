"""What a colony and its processes went through can be exported, and checked by anyone."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from colonist_protocol.audit import GetAudit, GetEvidence
from colonist_protocol.codec import from_base64
from colonist_protocol.process import CancelProcess
from colonist_server.repo import checkpoints, keys
from colonist_server.repo.heads import closed_head
from colonist_server.repo.records import decode_checkpoint, decode_live
from tests.server.history import History, historic
from tests.server.people import World, world
from tests.support.attempts import take
from tests.support.audit import Export, exported
from tests.support.clock import virtual
from tests.support.memory_archive import MemoryArchive
from tests.support.rooms import COLONY, COLONY_OWNER, key, settle

ADA, UMA = key("ada"), key("uma")
SOON_S = 11.0
"""By then all is in a checkpoint."""


def processes_of(made: World) -> set[str]:
    """What the store says: births of this colony."""
    store: Any = made.rooms.writes.store
    items = store._items
    return {key[2:].hex() for key in items if key.startswith(keys.BIRTH + made.colony.tag)}


@pytest.mark.parametrize("size", [1, 5_000, 0])
@virtual
async def test_everything_is_exported_under_checkpoints(size: int) -> None:
    async with historic(None) as made:
        history = History(made)
        await history.make()
        await made.weave()
        await asyncio.sleep(SOON_S)
        export = await exported(made, size=size)
        export.check()
        chain, *found = export.chains
        assert set(found) == processes_of(made)
        assert chain == made.colony.tag.hex().ljust(64, "0")
        assert (export.header.colony, export.header.server) == (
            COLONY,
            made.rooms.server_keys.id,
        )
        for row in made.rooms.view.rows.values():
            assert len(export.chains[row.id]) == row.live().count


@virtual
async def test_the_archive_makes_no_difference() -> None:
    archive = MemoryArchive()
    async with historic(archive) as made:
        history = History(made)
        await history.make()
        await asyncio.sleep(SOON_S)
        before = await exported(made)
        await asyncio.sleep(400)
        await settle()
        assert archive.rows
        after = await exported(made, size=3_000)
        assert after.chains == before.chains
        after.check()


@virtual
async def test_requests_stand_beside_what_they_caused() -> None:
    async with historic(None) as made:
        history = History(made)
        await history.make()
        export = await exported(made)
        told: dict[str, list[str]] = {}
        for chain, entries in export.chains.items():
            for line, request in entries:
                kind = json.loads(from_base64(request.payload))["msgtype"] if request else ""
                told.setdefault(line.what, []).append(kind)
                assert kind or line.what not in ("succeeded", "failed") or not line.who
                assert not kind or line.who, chain
        graphs, lone = len(history.graphs), len(history.lone)
        assert told["submitted"].count("submitfuncspecmsg") == lone
        assert told["submitted"].count("submitworkflowspecmsg") == graphs
        assert set(told["succeeded"]) == {"closesuccessfulmsg"}
        assert "closefailedmsg" in told["failed"]
        assert told["colony_added"] == ["addcolonymsg"]


@virtual
async def test_one_process_is_told_with_the_checkpoint_that_holds_it() -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        await asyncio.sleep(SOON_S)
        whole = await exported(made)
        for id in (made.succeeded, made.running, made.waiting):
            told = await made.call(GetEvidence(processid=id), UMA)
            one = Export([told["header"], *told["checkpoints"], *told["lines"]])
            assert list(one.chains) == [id]
            assert one.chains[id] == whole.chains[id]
            [(_, checkpoint)] = one.checkpoints
            ends = {chain: hash for chain, _, hash in checkpoint.heads}
            assert whole.heads()[id][1] == ends[id]


@virtual
async def test_before_a_checkpoint_a_process_is_told_without() -> None:
    async with world() as made:
        await made.populate()
        await settle()
        id = (await made.submit("uma")).processid
        told = await made.call(GetEvidence(processid=id), UMA)
        assert (told["checkpoints"], len(told["lines"])) == ([], 2)
        await asyncio.sleep(SOON_S)
        await made.call(CancelProcess(processid=id), UMA)
        told = await made.call(GetEvidence(processid=id), UMA)
        assert (len(told["checkpoints"]), len(told["lines"])) == (2, 3)


@pytest.mark.parametrize(
    "cursor",
    ["?", "0.q.", "1.q.", "q.", "q.xyz", "0.h.abc", "0.p." + "00" * 33, "0.z.00", "0.q.1.2"],
)
@virtual
async def test_a_cursor_that_no_page_gave_is_refused_or_harmless(cursor: str) -> None:
    async with world() as made:
        await made.populate()
        if cursor == "0.q.":
            assert await made.call(GetAudit(colonyname=COLONY, cursor=cursor), COLONY_OWNER)
            return
        message = GetAudit(colonyname=COLONY, cursor=cursor)
        refused = await made.refuse(message, COLONY_OWNER)
        assert (refused.failure.status, refused.failure.code) == (400, "invalid_value")


@virtual
async def test_nothing_is_signed_while_nothing_changes() -> None:
    async with world() as made:
        await made.populate()
        await asyncio.sleep(SOON_S)
        prefix = keys.checkpoints(made.colony.tag)
        before = (await made.rooms.writes.range(prefix)).items
        await asyncio.sleep(600)
        assert (await made.rooms.writes.range(prefix)).items == before
        await made.submit("uma")
        await settle()
        after = (await made.rooms.writes.range(prefix)).items
        assert len(after) == len(before) + 1
        assert len(decode_checkpoint(after[-1].value).heads) == 64


@virtual
async def test_many_heads_are_cut_into_several_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "MAX_HEADS", 3)
    async with world() as made:
        await made.populate()
        await asyncio.sleep(SOON_S)
        for _ in range(10):
            await made.submit("uma")
        await asyncio.sleep(SOON_S)
        export = await exported(made)
        export.check()
        assert max(len(checkpoint.heads) for _, checkpoint in export.checkpoints) == 3
        last = export.checkpoints[-1][1].time
        together = [each for _, each in export.checkpoints if each.time == last]
        assert sum(len(each.heads) for each in together) >= 9


@virtual
async def test_a_live_record_begins_as_its_head_is_read() -> None:
    """`heads` reads records by the place of their members."""
    async with world() as made:
        await made.populate()
        id = (await made.submit("uma")).processid
        await made.assign("ada")
        row = made.rooms.view.rows[bytes.fromhex(id)]
        live = decode_live(row.raw)
        await made.close("ada", id)
        item = await made.rooms.writes.read(keys.closed(row.pid))
        assert item is not None
        n, head = closed_head(item.value)
        assert (n, len(head)) == (live.count, 32)
        assert head != live.head


@pytest.mark.parametrize("is_archived", [False, True])
@virtual
async def test_sealed_results_are_told_whole_counted_or_not(is_archived: bool) -> None:
    async with historic(MemoryArchive() if is_archived else None) as made:
        await made.found("ada", "ben")
        await made.enrol("uma")
        id = (await made.submit("uma", maxexectime=10, maxretries=9)).processid
        early = await take(made, "ada")
        await asyncio.sleep(11)
        winner = await take(made, "ben")
        await winner.log()
        assert await early.fail() == "recorded"
        assert await winner.succeed() == "counted"
        await asyncio.sleep(400)
        export = await exported(made)
        export.check()
        told = {
            line.what: (line.who, json.loads(from_base64(request.payload))["msgtype"])
            for line, request in export.chains[id]
            if request is not None and request.seal
        }
        assert told == {
            "recorded": (ADA.id, "closefailedmsg"),
            "succeeded": (key("ben").id, "closesuccessfulmsg"),
        }
