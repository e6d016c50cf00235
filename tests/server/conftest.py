from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest

from tests.server.conformance import Watchman
from tests.server.house import House, house


@pytest.fixture(autouse=True)
def _every_answer_is_listed(watchman: Watchman) -> Generator[None]:
    """Whatever a test asks, the table of remote procedures lists the answer."""
    watchman.unlisted.clear()
    yield
    assert watchman.unlisted == []


@pytest.fixture(scope="session")
def watchman() -> Generator[Watchman]:
    with Watchman() as made:
        yield made


@pytest.fixture
async def home(tmp_path: Path) -> AsyncGenerator[House]:
    """A server over HTTP, with everybody in it and a process in every state."""
    async with house(tmp_path) as made:
        await made.populate()
        await made.employ()
        yield made
