"""Import directions hold, and the tool that says so does see a fault."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("protocol", "server", "edge_agent", "bridge", "cli")
FAULTS = [
    ("protocol/colonist_core/__init__.py", "import time"),
    ("protocol/colonist_protocol/__init__.py", "import colonist_core"),
    ("edge_agent/colonist_agent/__init__.py", "import colonist_server"),
    ("server/colonist_server/repo/__init__.py", "import aiohttp"),
    ("bridge/colonist_bridge/__init__.py", "import paho.mqtt.client"),
    ("server/colonist_server/rpc/__init__.py", "import coincurve"),
    ("server/colonist_server/store/__init__.py", "import colonist_server.rpc"),
]


def contracts(root: Path) -> subprocess.CompletedProcess[str]:
    places = os.pathsep.join(str(root / source) for source in SOURCES)
    return subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache", "--no-logo"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": places, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The source tree, to plant a fault in."""
    for source in SOURCES:
        shutil.copytree(ROOT / source, tmp_path / source)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_import_contracts_hold() -> None:
    done = contracts(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("file", "line"), FAULTS)
def test_a_planted_fault_is_seen(copy: Path, file: str, line: str) -> None:
    path = copy / file
    path.write_text(f"{path.read_text()}\n\ndef planted():\n    {line}\n")
    done = contracts(copy)
    assert "BROKEN" in done.stdout, done.stdout + done.stderr
