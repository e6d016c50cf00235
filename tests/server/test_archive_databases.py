"""Moves from a real store to real databases, and what another server makes of it after."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from pathlib import Path

import psycopg
import pytest

from colonist_server.archive.sql import SqlArchive
from colonist_server.repo import keys
from colonist_server.repo.archiving import Archiving
from colonist_server.store.sqlite import SqliteStore
from tests.server.history import History, historic
from tests.support.postgres import PASSWORD, Postgres, postgres


@pytest.fixture(scope="module")
def server() -> Generator[Postgres]:
    with postgres() as made:
        yield made


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'archive.db'}"
    made: Postgres = request.getfixturevalue("server")
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    with psycopg.connect(made.url(), autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS archive, archive_meta")
    return made.url()


async def test_history_is_read_from_a_database_as_from_the_store(
    address: str, tmp_path: Path
) -> None:
    path = tmp_path / "store.db"
    async with (
        await SqliteStore.open(path, in_process=True) as store,
        await SqlArchive.open(address) as archive,
        historic(archive, store) as made,
    ):
        history = History(made)
        await history.make()
        before = await history.read()
        mover = Archiving(made.rooms.removal._writes, archive)
        lone = mover.move(made.colony, [bytes.fromhex(id) for id in history.lone])
        moving = asyncio.create_task(lone)
        while not moving.done():
            assert await history.read() == before
        await moving
        for id in history.graphs:
            await mover.move_workflow(made.colony, bytes.fromhex(id)[: keys.WID_BYTES])
        assert await history.read() == before
    async with (
        await SqliteStore.open(path, in_process=True) as store,
        await SqlArchive.open(address) as archive,
        historic(archive, store) as made,
    ):
        history.made = made
        assert await history.read() == before
        await history.count()
