"""A whole server whose PostgreSQL is down when it starts, and comes later."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import psycopg
import pytest

from colonist_protocol.process import GetProcess, State
from colonist_server.archive.sql import SqlArchive
from colonist_server.repo.archiving import Archiving
from colonist_server.store.sqlite import SqliteStore
from tests.server.history import UMA, History, historic
from tests.server.house import Got, House, house
from tests.support.postgres import PASSWORD, Postgres, postgres

COMES_S = 30.0
KEPT = {"archive_age_s": 1e6}


async def _archived(url: str, folder: Path) -> tuple[History, object]:
    """A history, the processes of which are in the archive; what is replied about it."""
    async with (
        await SqliteStore.open(folder / "store.db", in_process=True) as store,
        await SqlArchive.open(url) as archive,
        historic(archive, store, **KEPT) as made,
    ):
        history = History(made)
        await history.make()
        mover = Archiving(made.rooms.removal._writes, archive)
        await mover.move(made.colony, [bytes.fromhex(id) for id in history.lone])
        return history, await made.call(GetProcess(processid=history.lone[0]), UMA)


async def _until_ready(home: House, status: int, words: str) -> Got:
    async with asyncio.timeout(COMES_S):
        while True:
            got = await home.request("GET", "/readyz")
            if got.status == status and re.search(words, got.body.decode()):
                return got
            await asyncio.sleep(0.05)


async def _work(home: House) -> None:
    id = (await home.submit("uma")).processid
    await home.assign("ada")
    await home.close("ada", id)
    assert (await home.get("uma", id)).state == State.SUCCESS


async def test_a_database_that_is_down_at_the_start_is_used_when_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    with postgres() as own:
        history, before = await _archived(own.url(), tmp_path)
        own.stop()
        async with house(tmp_path, archive=own.url(), **KEPT) as home:
            history.made = home
            got = await home.request("GET", "/readyz")
            assert got.status == 200
            assert got.body.startswith(b"ok\narchive: not reached since the start, trying again: ")
            assert PASSWORD not in got.body.decode()
            await _work(home)
            wanted = GetProcess(processid=history.lone[0])
            failure = (await home.refuse(wanted, UMA)).failure
            assert (failure.status, failure.code) == (503, "unavailable")
            own.start()
            await _until_ready(home, 200, r"\Aok\Z")
            assert await home.call(wanted, UMA) == before
            await history.count()


async def test_a_database_that_comes_and_is_another_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    with postgres() as own:
        history, _ = await _archived(own.url(), tmp_path)
        async with house(tmp_path, archive=own.url("later"), **KEPT) as home:
            await _until_ready(home, 200, 'database "later" does not exist')
            _create(own, "later")
            got = await _until_ready(home, 503, "leads to a database without one")
            assert b"give the address of the first" in got.body
            failure = (await home.refuse(GetProcess(processid=history.lone[0]), UMA)).failure
            assert got.body.decode() in failure.message
            await _work(home)
            assert _tables(own, "later") == []
            async with await SqlArchive.open(own.url("later")) as other:
                await _until_ready(home, 503, f"leads to {other.identity}")
                assert (await other.range(b"")).rows == []


def _create(own: Postgres, name: str) -> None:
    with psycopg.connect(own.url(), autocommit=True) as connection:
        connection.execute(
            psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name))
        )


def _tables(own: Postgres, name: str) -> list[str]:
    with psycopg.connect(own.url(name)) as connection:
        found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return [row[0] for row in found]
