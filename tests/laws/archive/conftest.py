"""One archive of every implementation for each law."""

from collections.abc import AsyncGenerator, Generator
from itertools import count
from pathlib import Path

import psycopg
import pytest

from colonist_server.archive.sql import SqlArchive
from tests.support.postgres import PASSWORD, Postgres, postgres

_NUMBERS = count(1)


@pytest.fixture(scope="session")
def server() -> Generator[Postgres]:
    with postgres() as made:
        yield made


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty archive."""
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'archive.db'}"
    made: Postgres = request.getfixturevalue("server")
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    name = f"archive{next(_NUMBERS)}"
    with psycopg.connect(made.url(), autocommit=True) as connection:
        connection.execute(
            psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name))
        )
    return made.url(name)


@pytest.fixture
async def archive(address: str) -> AsyncGenerator[SqlArchive]:
    async with await SqlArchive.open(address) as opened:
        yield opened
