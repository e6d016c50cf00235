"""`colonist demo`: the newcomer's first impression is true, and leaves nothing behind."""

import re
import tempfile
from pathlib import Path

import pytest

from tests.support import colonist
from tests.support.colonist import run

pytestmark = pytest.mark.e2e


def left_over(folder: Path) -> list[Path]:
    return list(folder.glob("colonist-demo-*"))


@pytest.mark.slow
def test_the_demo_ends_by_itself_and_shows_both_ways(tmp_path: Path) -> None:
    done = run("demo", home=tmp_path, timeout_s=60, TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"^ ?\d+ .* (http|mqtt) .*(✓|✗)", done.stdout, re.MULTILINE)
    assert len(rows) >= 20
    assert {way for way, _ in rows} == {"http", "mqtt"}
    assert [mark for _, mark in rows].count("✗") == 2
    assert "kill -9: the server" in done.stdout
    assert "was given the work and did it" in done.stdout
    assert left_over(tmp_path) == []
    assert not (tmp_path / "state").exists()


def test_ctrl_c_in_the_middle_of_the_demo_leaves_nothing(tmp_path: Path) -> None:
    until = "submitted at once"
    with colonist.running("demo", home=tmp_path, until=until, TMPDIR=str(tmp_path)) as demo:
        pids = [int(found) for found in re.findall(r"\(pid (\d+)", demo.text)]
        assert len(pids) == 3
        assert demo.end() == 130
        alive = [pid for pid in pids if Path(f"/proc/{pid}/cmdline").exists()]
        assert alive == []
        assert left_over(tmp_path) == []
        assert "Traceback" not in demo.text


def test_the_users_own_colony_is_not_touched(tmp_path: Path) -> None:
    assert Path(tempfile.gettempdir()).exists()
    help = run("demo", "--help", home=tmp_path).stdout
    assert "--keep" in help
