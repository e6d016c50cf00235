"""One store of every implementation for each law."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from colonist_server.store.interface import Store
from tests.laws.harness import KINDS, Kind, kind_class


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    return kind_class(request.param, request)(tmp_path)


@pytest.fixture
async def store(kind: Kind) -> AsyncGenerator[Store, None]:
    async with kind.open() as opened:
        yield opened
