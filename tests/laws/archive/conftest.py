"""One archive of every implementation for each law."""

from collections.abc import AsyncGenerator, Generator
from itertools import count
from pathlib import Path

import psycopg
import pytest

from colonist_server.archive.interface import Archive
from colonist_server.archive.sql import SqlArchive
from tests.support.memory_archive import MemoryArchive
from tests.support.postgres import PASSWORD, Postgres, postgres

_NUMBERS = count(1)


@pytest.fixture(scope="session")
def server() -> Generator[Postgres]:
    with postgres() as made:
        yield made


def _new(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty archive."""
    if kind == "sqlite":
        return f"sqlite:{tmp_path / 'archive.db'}"
    made: Postgres = request.getfixturevalue("server")
    request.getfixturevalue("monkeypatch").setenv("PGPASSWORD", PASSWORD)
    name = f"archive{next(_NUMBERS)}"
    with psycopg.connect(made.url(), autocommit=True) as connection:
        connection.execute(
            psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name))
        )
    return made.url(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty archive."""
    return _new(request.param, request, tmp_path)


@pytest.fixture(params=["sqlite", "postgresql", "memory"])
async def archive(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Archive]:
    """An open archive; the one in memory is what other tests are made with."""
    if request.param == "memory":
        yield MemoryArchive()
        return
    async with await SqlArchive.open(_new(request.param, request, tmp_path)) as opened:
        yield opened
