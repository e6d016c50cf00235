"""Three etcd members, told what the files under deploy/ tell them, become one cluster."""

import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import parts
from tests.support.broker import free_port
from tests.support.deployment import SYSTEMD as UNITS
from tests.support.deployment import compose, env_file, pod

START_S = 30.0
PORTS = ("2379", "2380", "2381")


class Member:
    """How one member is started: its flags and its variables, as some file has them."""

    def __init__(self, flags: Sequence[str], variables: Mapping[str, str]) -> None:
        self.flags = flags
        self.variables = variables


def of_compose(number: int) -> Member:
    return Member((), compose()["services"][f"etcd-{number + 1}"]["environment"])


def of_kubernetes(number: int) -> Member:
    flags = pod("StatefulSet", "etcd")["containers"][0]["args"]
    return Member([flag.replace("$(POD)", f"etcd-{number}") for flag in flags], {})


def of_systemd(number: int) -> Member:
    """As on its machine, but for TLS, which needs certificates."""
    variables = {
        name: value.replace("https://", "http://")
        for name, value in env_file(UNITS / "etcd.env").items()
        if not re.search(r"CERT|KEY_FILE|CA_FILE", name)
    }
    for name in ("NAME", "INITIAL_ADVERTISE_PEER_URLS", "ADVERTISE_CLIENT_URLS"):
        variables[f"ETCD_{name}"] = variables[f"ETCD_{name}"].replace(
            "etcd-1", f"etcd-{number + 1}"
        )
    return Member((), variables)


class Addresses:
    """Names and ports of three machines, as free ports of this one."""

    def __init__(self) -> None:
        self.ports = [{port: str(free_port()) for port in PORTS} for _ in range(3)]

    def here(self, text: str, number: int, first: int) -> str:
        """A setting of the member with this number; `first` is the number in the first's name."""
        for other, ports in enumerate(self.ports):
            for port, mine in ports.items():
                machine = rf"etcd-{other + first}(\.etcd|\.example)?:{port}\b"
                text = re.sub(machine, f"127.0.0.1:{mine}", text)
        for port, mine in self.ports[number].items():
            text = re.sub(rf"(0\.0\.0\.0|127\.0\.0\.1):{port}\b", f"127.0.0.1:{mine}", text)
        return text


@contextmanager
def started(of: Callable[[int], Member], folder: Path, first: int) -> Iterator[Addresses]:
    program = parts.etcd().path
    assert program is not None
    addresses = Addresses()
    running: list[subprocess.Popen[bytes]] = []
    try:
        for number in range(3):
            member = of(number)
            data = folder / str(number)
            flags = [
                addresses.here(flag, number, first)
                for flag in member.flags
                if not flag.startswith("--data-dir=")
            ]
            variables = {
                name: addresses.here(value, number, first)
                for name, value in member.variables.items()
                if name != "ETCD_DATA_DIR"
            }
            with (folder / f"{number}.log").open("wb") as log:
                command = [program, f"--data-dir={data}", *flags]
                variables["PATH"] = "/usr/bin:/bin"
                running.append(subprocess.Popen(command, env=variables, stdout=log, stderr=log))
        yield addresses
    finally:
        for process in running:
            process.kill()
        for process in running:
            process.wait(10)


@pytest.mark.parametrize(
    ("of", "first"),
    [(of_compose, 1), (of_kubernetes, 0), (of_systemd, 1)],
    ids=["compose", "kubernetes", "systemd"],
)
def test_members_find_each_other(of: Callable[[int], Member], first: int, tmp_path: Path) -> None:
    with started(of, tmp_path, first) as addresses:
        deadline = time.monotonic() + START_S
        for ports in addresses.ports:
            while not is_healthy(ports["2379"]):
                assert time.monotonic() < deadline, (tmp_path / "0.log").read_text()[-2000:]
                time.sleep(0.05)
        logs = "".join(path.read_text() for path in tmp_path.glob("*.log"))
        assert "unrecognized environment variable" not in logs


def is_healthy(port: str) -> bool:
    """Whether a member serves, which it does once a leader is elected."""
    url = f"http://127.0.0.1:{port}/health"
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return b'"true"' in reply.read()
    except OSError:
        return False
