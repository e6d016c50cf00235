"""`colonist up --nodes 3`: three servers in one process, on an etcd of its own."""

import json
import os
import re
import select
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import colonist, parts
from tests.support.colonist import Running, run

pytestmark = pytest.mark.e2e

ARGUMENTS = ("up", "--nodes", "3", "--port", "0", "--broker-port", "0")
READY = "In another terminal"


@pytest.fixture(autouse=True)
def etcd() -> None:
    parts.etcd()


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Running]:
    with colonist.running(*ARGUMENTS, home=tmp_path, until=READY) as made:
        yield made


def servers(program: Running) -> list[str]:
    return re.findall(r"server   (http://\S+)", program.text)


def store(program: Running) -> str:
    found = re.search(r"etcd://(127\.0\.0\.1:\d+)/", program.text)
    assert found
    return f"http://{found[1]}"


def test_every_node_serves_the_same_colony(up: Running, tmp_path: Path) -> None:
    urls = servers(up)
    assert len(set(urls)) == 3
    assert up.text.count("which leads") == 1
    for url in urls:
        with urllib.request.urlopen(f"{url}/readyz", timeout=10) as reply:  # noqa: S310 - http
            assert re.fullmatch(r"ok\nstore: .* of the quota of 2048 MiB", reply.read().decode())
    ids = []
    for number, url in enumerate(urls):
        name = ("http-agent", "mqtt-agent")[number % 2]
        done = run("call", "echo", str(number), "--name", name, "--server", url, home=tmp_path)
        assert (done.returncode, done.stdout) == (0, f"{number}\n"), done.stderr
    for url in urls:
        shown = run("process", "list", "--server", url, "-o", "json", home=tmp_path)
        ids.append({each["processid"] for each in json.loads(shown.stdout)})
    assert ids[0] == ids[1] == ids[2]
    assert len(ids[0]) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_nodes_then_etcd(
    up: Running, tmp_path: Path, number: signal.Signals
) -> None:
    urls = [*servers(up), store(up)]
    assert all(map(colonist.is_open, urls))
    os.killpg(up.process.pid, number)  # as a terminal does: to all that runs in it
    assert up.process.wait(30) == 0
    assert not any(map(colonist.is_open, urls))
    assert "Traceback" not in up.text
    assert "ERROR" not in up.text
    assert etcds(tmp_path) == []


def test_a_second_up_finds_the_colony_again(tmp_path: Path) -> None:
    with colonist.running(*ARGUMENTS, home=tmp_path, until=READY) as up:
        assert run("call", "echo", "1", home=tmp_path).stdout == "1\n"
        assert up.end() == 0
    with colonist.running(*ARGUMENTS, home=tmp_path, until=READY) as up:
        assert "found again, 1 processes done" in up.text
        assert run("call", "echo", "2", "--name", "mqtt-agent", home=tmp_path).stdout == "2\n"


def test_etcd_does_not_outlive_a_killed_up(tmp_path: Path) -> None:
    with colonist.running(*ARGUMENTS, home=tmp_path, until=READY) as up:
        [etcd] = etcds(tmp_path)
        with_pid = os.pidfd_open(etcd)
        os.kill(up.process.pid, signal.SIGKILL)
        ended, _, _ = select.select([with_pid], [], [], 20)
        os.close(with_pid)
        assert ended
    with colonist.running(*ARGUMENTS, home=tmp_path, until=READY) as up:
        assert "found again" in up.text


def etcds(home: Path) -> list[int]:
    """The etcd processes with their data under a home."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"--data-dir={home}/state/etcd/data".encode() in words:
            found.append(int(entry.name))
    return found
