"""A long chain is told in pages too: in an export and alone, whatever happens between them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from colonist_client import evidence as client_evidence
from colonist_client.client import Client
from colonist_protocol.audit import GetAudit, GetEvidence
from colonist_protocol.process import RemoveProcess
from colonist_server.repo import evidence
from tests.server.history import historic
from tests.server.people import World
from tests.support.attempts import take
from tests.support.audit import Export, exported
from tests.support.clock import virtual
from tests.support.memory_archive import MemoryArchive
from tests.support.rooms import COLONY, COLONY_OWNER, key, settle
from tests.support.transports import DirectTransport

UMA = key("uma")
SIZE = 10_000
STRETCH = 4_000
TRIES = 40
"""Each three events; a process with so many needs some ten pages."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "STRETCH_BYTES", STRETCH)


async def tire(made: World, times: int = TRIES) -> None:
    """Take work and give it back."""
    for _ in range(times):
        held = await take(made, "ada")
        await held.log()
        await held.release()


async def tired(made: World) -> str:
    """A process with a long chain."""
    await made.found("ada")
    await made.enrol("uma")
    id = (await made.submit("uma")).processid
    await tire(made)
    await asyncio.sleep(10)
    return id


async def page_of(made: World, cursor: str) -> Any:
    return await made.call(GetAudit(colonyname=COLONY, cursor=cursor, size=SIZE), COLONY_OWNER)


async def told(made: World, id: str, cursor: str = "", size: int = SIZE) -> Any:
    return await made.call(GetEvidence(processid=id, cursor=cursor, size=size), UMA)


async def until_within(made: World, id: str) -> tuple[list[str], str]:
    """The pages of an export until one ends within the chain of a process; and its cursor."""
    lines: list[str] = []
    cursor = ""
    while f".p.{id}." not in cursor:
        page = await page_of(made, cursor)
        lines += page["lines"]
        cursor = page["cursor"]
        assert cursor
    return lines, cursor


async def rest(made: World, lines: list[str], cursor: str) -> Export:
    while cursor:
        page = await page_of(made, cursor)
        assert sum(map(len, page["lines"])) <= SIZE
        lines += page["lines"]
        cursor = page["cursor"]
    return Export(lines)


async def refused(made: World, message: Any, identity: Any) -> str:
    failure = (await made.refuse(message, identity)).failure
    assert (failure.status, failure.code) == (400, "invalid_value")
    return failure.message


@pytest.mark.parametrize("is_archived", [False, True])
@virtual
async def test_pages_of_an_export_end_within_a_chain(is_archived: bool) -> None:
    async with historic(MemoryArchive() if is_archived else None) as made:
        id = await tired(made)
        if is_archived:
            await (await take(made, "ada")).succeed()
            await asyncio.sleep(400)
            await settle()
        whole = await exported(made)
        assert len(whole.chains[id]) > 2 * TRIES
        paged = await rest(made, *await until_within(made, id))
        assert paged.lines[1:] == whole.lines[1:]
        paged.check()
        paged.verify()


@virtual
async def test_one_process_is_told_in_pages_with_its_checkpoint_last() -> None:
    async with historic(None) as made:
        id = await tired(made)
        whole = await told(made, id, size=0)
        assert (whole["cursor"], len(whole["checkpoints"])) == ("", 2)
        lines: list[str] = []
        cursor, pages = "", 0
        while True:
            page = await told(made, id, cursor)
            assert sum(map(len, page["lines"])) <= SIZE
            lines += page["lines"]
            cursor, pages = page["cursor"], pages + 1
            if not cursor:
                break
            assert page["checkpoints"] == []
        assert lines == whole["lines"]
        assert page["checkpoints"] == whole["checkpoints"]
        assert pages > 5


@virtual
async def test_a_client_asks_for_all_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_evidence, "PAGE_BYTES", SIZE)
    async with historic(None) as made:
        id = await tired(made)

        async def answer(body: bytes) -> bytes:
            return (await made.dispatch.answer(body)).body

        transport = DirectTransport(answer)
        found = await Client(transport, UMA).process_evidence(id)
        whole = await told(made, id, size=0)
        assert (list(found.lines), list(found.checkpoints)) == (
            whole["lines"],
            whole["checkpoints"],
        )
        assert transport.count("getevidencemsg") > 5


@virtual
async def test_the_newest_events_need_not_be_under_a_checkpoint_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evidence, "STRETCH_BYTES", 1)
    async with historic(None) as made:
        id = await tired(made)
        held = await take(made, "ada")
        await settle()  # the first change after a while is under a checkpoint at once
        await held.log()
        page = await told(made, id, size=1)
        while page["cursor"]:
            page = await told(made, id, page["cursor"], size=1)
        assert len(page["checkpoints"]) == 2


@virtual
async def test_a_chain_that_grows_while_it_is_read_is_told_without_a_gap() -> None:
    async with historic(None) as made:
        id = await tired(made)
        reader = evidence.Evidence(made.rooms.writes.past)
        [stored] = await reader.read([bytes.fromhex(id)])
        await tire(made, 7)
        links = [link async for each in reader.stretches(stored) for link in each.links]
        assert stored.live is not None
        assert [link.line.n for link in links[: stored.live.count]] == [*range(stored.live.count)]
        assert links[stored.live.count - 1].head == stored.live.head


@virtual
async def test_a_chain_that_goes_on_between_pages_is_told_to_its_end() -> None:
    async with historic(None) as made:
        id = await tired(made)
        lines, cursor = await until_within(made, id)
        await tire(made)
        held = await take(made, "ada")
        await held.succeed()
        export = await rest(made, lines, cursor)
        [row] = [export.chains[id]]
        assert row[-1].line.what == "succeeded"
        assert row[-1].request is not None
        export.check(is_covered=False)


@virtual
async def test_a_chain_that_is_archived_between_pages_is_told_to_its_end() -> None:
    archive = MemoryArchive()
    async with historic(archive) as made:
        id = await tired(made)
        await (await take(made, "ada")).succeed()
        await asyncio.sleep(10)
        lines, cursor = await until_within(made, id)
        await asyncio.sleep(400)
        await settle()
        assert archive.rows
        export = await rest(made, lines, cursor)
        export.check(is_covered=False)
        assert export.chains[id][-1].line.what == "succeeded"


@virtual
async def test_of_a_process_that_is_removed_between_pages_an_export_begins_anew() -> None:
    async with historic(None) as made:
        id = await tired(made)
        _, cursor = await until_within(made, id)
        own = (await told(made, id))["cursor"]
        await made.call(RemoveProcess(processid=id), UMA)
        await asyncio.sleep(10)
        message = GetAudit(colonyname=COLONY, cursor=cursor, size=SIZE)
        assert "begin anew" in await refused(made, message, COLONY_OWNER)
        [entry] = (await exported(made, size=SIZE)).chains[id]
        assert entry.line.what == "removed"
        alone = await told(made, id)
        assert (len(alone["lines"]), alone["cursor"]) == (1, "")
        message = GetEvidence(processid=id, cursor=own)
        assert "begin anew" in await refused(made, message, UMA)


@virtual
async def test_nobody_chooses_from_where_a_chain_goes_on() -> None:
    async with historic(None) as made:
        id = await tired(made)
        other = (await made.submit("uma")).processid
        _, cursor = await until_within(made, id)
        forgotten, phase, _, n, head, mac = cursor.split(".")
        forged = [
            (id, "0" * 64, n, mac),
            (id, head, "1", mac),
            (id, head, n, "0" * 32),
            (other, head, n, mac),
            (id, head, n, mac + "0"),
            ("00" * 36, head, n, mac),
        ]
        for whose, hash, number, code in forged:
            wrong = ".".join((forgotten, phase, whose, number, hash, code))
            message = GetAudit(colonyname=COLONY, cursor=wrong)
            assert await refused(made, message, COLONY_OWNER)
            alone = ".".join((number, hash, code))
            if whose != id or code != mac:
                assert await refused(made, GetEvidence(processid=other, cursor=alone), UMA)
        audit: Any = made.rooms.audit
        foreign = b"none" + bytes(28)
        mark = audit._marked(foreign, evidence.Mark(1, bytes(32)))
        message = GetAudit(colonyname=COLONY, cursor=f"{forgotten}.p.{foreign.hex()}.{mark}")
        assert "not one that" in await refused(made, message, COLONY_OWNER)
        changes = f"{forgotten}.h.00.{n}.{head}.{mac}"
        assert await refused(made, GetAudit(colonyname=COLONY, cursor=changes), COLONY_OWNER)
        assert await refused(made, GetAudit(colonyname=COLONY, cursor="0.q.1.1.1"), COLONY_OWNER)
