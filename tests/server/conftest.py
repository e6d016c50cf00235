from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.server.house import House, house


@pytest.fixture
async def home(tmp_path: Path) -> AsyncGenerator[House]:
    """A server over HTTP, with everybody in it and a process in every state."""
    async with house(tmp_path) as made:
        await made.populate()
        await made.employ()
        yield made
