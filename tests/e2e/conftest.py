"""A whole colony, started once for each file of tests that use it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import colonist


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def up(home: Path) -> Iterator[colonist.Running]:
    ports = ("--port", "0", "--broker-port", "0")
    with colonist.running("up", *ports, home=home, until="In another terminal") as made:
        yield made
