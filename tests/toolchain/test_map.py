"""The map of the server's modules in docs/explain/architecture.md is whole."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explain" / "architecture.md"
ROOMS = ("http", "rpc", "loops", "repo")


def modules(room: str) -> set[str]:
    folder = ROOT / "server" / "colonist_server" / room
    return {path.stem for path in folder.glob("*.py")} - {"__init__"}


@pytest.mark.parametrize("room", ROOMS)
def test_each_module_is_on_the_map(room: str) -> None:
    _, _, after = PAGE.read_text().partition(f"\n**`{room}`**")
    named = set(re.findall(r"`(\w+)`", after.partition("\n**`")[0]))
    assert sorted(modules(room) - named) == []


def test_the_map_names_nothing_that_is_gone() -> None:
    _, _, after = PAGE.read_text().partition("\n## Inside the server\n")
    rows = [line for line in after.splitlines() if line.startswith("| ")]
    named = set(re.findall(r"`(\w+)`", "\n".join(rows)))
    assert named - {module for room in ROOMS for module in modules(room)} == set()
