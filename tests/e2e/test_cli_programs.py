"""Programs in the foreground: they start, are found again, and Ctrl-C leaves nothing behind."""

import json
import re
import signal
from pathlib import Path

import pytest

from tests.support import colonist
from tests.support.colonist import Running, run

pytestmark = pytest.mark.e2e

PORTS = ("--port", "0", "--broker-port", "0")
READY = "In another terminal"


def addresses(program: Running) -> list[str]:
    return re.findall(r"(?:http|mqtt)://127\.0\.0\.1:\d+", program.text)[:2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything(tmp_path: Path, number: signal.Signals) -> None:
    with colonist.running("up", *PORTS, home=tmp_path, until=READY) as up:
        urls = addresses(up)
        assert [colonist.is_open(url) for url in urls] == [True, True]
        assert up.end(number) == 0
        assert [colonist.is_open(url) for url in urls] == [False, False]
        assert colonist.children(up.process.pid) == []
        assert "Traceback" not in up.text


def test_a_second_up_finds_the_same_colony(tmp_path: Path) -> None:
    with colonist.running("up", *PORTS, home=tmp_path, until=READY) as up:
        assert re.search(r"colony +home +new", up.text)
        id = run("submit", "echo", "kept", "--wait", home=tmp_path).stderr.split()[1]
        keys = {path: path.read_text() for path in (tmp_path / "state/keys").iterdir()}
        assert up.end() == 0
    with colonist.running("up", *PORTS, home=tmp_path, until=READY) as up:
        assert "found again, 1 processes done" in up.text
        assert keys == {path: path.read_text() for path in (tmp_path / "state/keys").iterdir()}
        shown = json.loads(run("process", "get", id, "-o", "json", home=tmp_path).stdout)
        assert shown["out"] == ["kept"]
        assert run("call", "echo", "1", "--name", "mqtt-agent", home=tmp_path).stdout == "1\n"


def test_keys_are_for_their_owner_only(tmp_path: Path) -> None:
    with colonist.running("up", *PORTS, home=tmp_path, until=READY):
        modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "state/keys").iterdir()}
    assert modes == {0o600}


def test_ctrl_c_does_not_wait_for_work_that_runs(tmp_path: Path) -> None:
    with colonist.running("up", *PORTS, home=tmp_path, until=READY) as up:
        run("submit", "sleep", "60", home=tmp_path)
        assert up.end() == 0


def test_a_colony_is_made_by_hand(tmp_path: Path) -> None:
    """What `up` does, step by step, as docs/quickstart.md tells it."""
    server_id = run("key", "new", "boss", home=tmp_path).stdout.strip()
    arguments = ("server", "--port", "0", "--store", "sqlite:here.db")
    with colonist.running(
        *arguments, home=tmp_path, until="serving at", COLONIES_SERVER_ID=server_id
    ) as server:
        url = addresses(server)[0]
        assert server_id in server.text
        at = ("--server", url, "--colony", "lab")
        boss = ("--key", "state/keys/boss.key")
        assert run("colony", "add", "lab", *at, *boss, home=tmp_path).returncode == 0
        owner = ("--key", "state/keys/lab.key")
        assert run("user", "add", "me", *at, *owner, home=tmp_path).returncode == 0
        added = run("executor", "add", "a", "--type", "t", *at, *owner, home=tmp_path)
        assert added.returncode == 0
        assert run("executor", "approve", "a", *at, *owner, home=tmp_path).returncode == 0
        agent = ("agent", "run", *at, "--name", "a", "--key", "state/keys/a.key")
        with colonist.running(*agent, home=tmp_path, until="agent_started") as running:
            me = ("--key", "state/keys/me.key", "--type", "t")
            assert run("call", "echo", "1", *at, *me, home=tmp_path).stdout == "1\n"
            assert running.end(signal.SIGTERM) == 0
        assert run("colony", "remove", "lab", *at, *boss, home=tmp_path).returncode == 0
        assert server.end() == 0
        assert not colonist.is_open(url)


def test_a_bridge_without_a_broker_goes_on_trying_until_ctrl_c(tmp_path: Path) -> None:
    arguments = (
        "--name",
        "edge",
        "--server",
        "http://127.0.0.1:1",
        "--broker",
        "mqtt://127.0.0.1:1",
    )
    with colonist.running("bridge", "run", *arguments, home=tmp_path, until="bridge") as bridge:
        assert bridge.end() == 0
    bad = run("bridge", "run", "--name", "Ä", *arguments[2:], home=tmp_path)
    assert bad.returncode == 2
    assert bad.stderr.count("\n") == 1


def test_a_store_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    (tmp_path / "no.db").write_text("this is no database " * 100)
    for store in ("sqlite:no.db", "sqlite:no.db/x.db", "sqlite:", "postgres:x"):
        done = run("server", "--port", "0", "--store", store, home=tmp_path)
        assert done.returncode in (2, 9), done.stderr
        assert "Traceback" not in done.stderr
        assert done.stderr.splitlines()[-1].startswith("colonist: ")


def test_a_node_is_named(tmp_path: Path) -> None:
    bad = run("server", "--port", "0", "--store", "sqlite:a.db", "--node", "a/b", home=tmp_path)
    assert (bad.returncode, bad.stderr.count("\n")) == (2, 1)
    assert "a/b" in bad.stderr
    arguments = ("server", "--port", "0", "--store", "sqlite:a.db", "--node", "hall")
    with colonist.running(*arguments, home=tmp_path, until="serving at") as server:
        assert server.end() == 0


def test_what_ended_goes_to_an_archive(tmp_path: Path) -> None:
    server = ("server", "--port", "0", "--store", "sqlite:a.db")
    archive = ("--archive", "sqlite:old.db")
    for wrong in (
        ("--archive", "nowhere"),
        (*archive, "--archive-after-age", "soon"),
        (*archive, "--archive-after-count", "few"),
        ("--archive", "sqlite:no/folder/old.db"),
    ):
        done = run(*server, *wrong, home=tmp_path)
        assert done.returncode in (2, 9), done.stderr
        assert "Traceback" not in done.stderr
    again = ("--archive-after-age", "1s", "--archive-after-count", "10")
    with colonist.running(*server, *archive, *again, home=tmp_path, until="serving at") as started:
        assert started.end() == 0
    assert (tmp_path / "old.db").exists()
