"""Real programs, at work, refused and crashing: nothing that they show or write holds a secret.

They run with every log line on, and tracebacks with the values of locals: more than anybody has.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

from colonist_client import keyfile, secret_file
from colonist_client.client import Client
from colonist_client.http import HttpTransport
from colonist_client.locked_key import Cost, lock
from colonist_protocol.claims import CODE_BYTES, Card, make_code, pack_card
from colonist_protocol.colony import Colony
from colonist_protocol.executor import Executor
from colonist_protocol.identity import Identity
from colonist_protocol.user import User
from tests.support import leaks
from tests.support.colonist import ROOT, environment, started
from tests.support.loudly import PLANTED
from tests.support.ports import free_ports

pytestmark = pytest.mark.e2e

COLONY = "home"
NAMES = ("owner", "server", "colony", "user", "executor", "next")
WORDS = {
    "passphrase": "Zq7-passphrase-of-the-test",
    "wrong": "Zq7-wrong-passphrase",
    "broker": "Zq7-password-of-the-broker",
    "etcd": "Zq7-password-of-etcd",
    "archive": "Zq7-password-of-the-archive",
    "code": make_code(b"of-a-card-of-ours"[:CODE_BYTES]),
}
WAIT_S = 30.0


@cache
def locked(key: Identity) -> bytes:
    """A key file under the passphrase."""
    return lock(key, WORDS["passphrase"].encode(), Cost(n=1 << 14))


@dataclass
class Vault:
    """Keys and passwords that are known, in the only files that may hold them."""

    home: Path
    keys: dict[str, Identity] = field(
        default_factory=lambda: {
            name: Identity.from_entropy(name.encode().ljust(32, b".")) for name in NAMES
        }
    )

    @property
    def folder(self) -> Path:
        return self.home / "vault"

    @property
    def secrets(self) -> dict[str, bytes]:
        found = {name: word.encode() for name, word in WORDS.items()}
        for identity in self.keys.values():
            found |= leaks.of_key(identity)
        return found

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def make(self) -> None:
        secret_file.make_folder(self.folder)
        for name, key in self.keys.items():
            keyfile.write(self.folder / f"{name}.key", key)
            secret_file.write(self.folder / f"{name}.locked", locked(key))
        for name, word in WORDS.items():
            secret_file.write(self.folder / name, f"{word}\n".encode())
        port = free_ports(1)[0]  # nobody listens there
        address = f"postgresql://colonist:{WORDS['archive']}@127.0.0.1:{port}/colonist"
        secret_file.write(self.folder / "address", address.encode())
        secret_file.write(self.folder / "half", f"{self.keys['user'].reveal()[:62]}\n".encode())
        secret_file.write(self.folder / "wide.key", self.keys["user"].reveal().encode())
        (self.folder / "wide.key").chmod(0o644)
        (self.folder / "link.key").symlink_to(self.folder / "user.key")

    def closed(self, text: str) -> None:
        """No secret is in the text, nor in a file outside of the vault."""
        assert leaks.found(text.encode(), self.secrets) == set(), text
        allowed = [self.folder, self.home / "keys"]
        assert leaks.in_files(self.home, self.secrets, but=allowed) == {}

    @property
    def unlocked_by(self) -> dict[str, str]:
        return {"COLONIST_PASSPHRASE_FILE": self.path("passphrase")}


SERVER = "colonist_server.main:main"
AGENT = "colonist_agent.main:main"
BRIDGE = "colonist_bridge.main:main"
CLI = "colonist_cli.main:main"


def command(program: str, *arguments: str, crash: str = "") -> list[str]:
    planted = ["--crash", crash] if crash else []
    return [sys.executable, "-m", "tests.support.loudly", *planted, program, *arguments]


def run(
    vault: Vault, words: Sequence[str], typed: str = "", **more: str
) -> subprocess.CompletedProcess[str]:
    """Run to the end, and look for secrets."""
    done = subprocess.run(
        words,
        env=environment(vault.home, **more),
        cwd=ROOT,
        input=typed,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
        start_new_session=True,  # without a terminal to ask at
    )
    vault.closed(done.stdout + done.stderr)
    return done


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    made = Vault(tmp_path)
    made.make()
    return made


def ring(vault: Vault, ending: str) -> Path:
    """The folder of a server's keys."""
    folder = vault.home / "keys"
    folder.mkdir(mode=0o700)
    for name, key in (("server.key", "server"), ("server.key.next", "next")):
        secret_file.write(folder / name, (vault.folder / f"{key}.{ending}").read_bytes())
    return folder


def server(vault: Vault, port: int, *more: str, crash: str = "") -> list[str]:
    store, keys = f"sqlite:{vault.home}/store.db", str(vault.home / "keys")
    flags = [f"--port={port}", f"--store={store}", f"--keys={keys}", *more]
    return command(SERVER, *flags, crash=crash)


async def populate(vault: Vault, url: str) -> None:
    """A colony with a user and an executor, and a request that is refused."""
    key = vault.keys
    async with Client(HttpTransport(url), key["owner"]) as client:
        await client.add_colony(Colony(colonyid=key["colony"].id, name=COLONY))
    async with Client(HttpTransport(url), key["colony"]) as client:
        await client.add_user(User(colonyname=COLONY, userid=key["user"].id, name="user"))
        made = Executor(
            executorid=key["executor"].id,
            executortype="machine",
            executorname="executor",
            colonyname=COLONY,
        )
        await client.add_executor(made)
        await client.approve_executor(COLONY, "executor")


@pytest.fixture
def at_work(vault: Vault) -> Iterator[str]:
    """A server with its keys under a passphrase and an archive that is away; its URL."""
    ring(vault, "locked")
    port = free_ports(1)[0]
    more = vault.unlocked_by | {
        "COLONIST_ARCHIVE_FILE": vault.path("address"),
        "COLONIES_SERVER_ID": vault.keys["owner"].id,
        "PYTHONASYNCIODEBUG": "1",
    }
    with started(
        server(vault, port), vault.home, until="starting without the archive", **more
    ) as made:
        made.until("serving at")
        url = f"http://127.0.0.1:{port}"
        asyncio.run(populate(vault, url))
        yield url
        assert made.end(signal.SIGTERM) == 0
        vault.closed(made.text)


def test_a_colony_at_work_shows_none(vault: Vault, at_work: str) -> None:
    agent = command(
        AGENT, f"--url={at_work}", f"--colony={COLONY}", "--name=executor", "--log-level=debug"
    )
    locked = vault.unlocked_by | {"COLONIST_AGENT_KEY_FILE": vault.path("executor.locked")}
    there = (f"--server={at_work}", f"--colony={COLONY}")
    with started(agent, vault.home, until="agent_started", **locked) as program:
        called = run(
            vault,
            command(
                CLI,
                "call",
                "echo",
                "1",
                "--type=machine",
                f"--server={at_work}",
                f"--colony={COLONY}",
            ),
            COLONIES_PRVKEY=vault.keys["user"].reveal(),
        )
        assert called.returncode == 0, called.stderr
        assert program.end(signal.SIGTERM) == 0
        vault.closed(program.text)
    for words, code in (
        (("executor", "list"), 0),
        (("colony", "list"), 4),
    ):
        key = f"--key={vault.path('user.locked')}"
        done = run(vault, command(CLI, *words, *there, key), **vault.unlocked_by)
        assert done.returncode == code, done.stderr


@pytest.mark.parametrize(
    ("program", "key", "secret", "reason"),
    [
        (SERVER, "wide.key", "passphrase", "chmod 600"),
        (AGENT, "wide.key", "passphrase", "chmod 600"),
        (AGENT, "half", "passphrase", "holds no private key"),
        (SERVER, "half", "passphrase", "holds no private key"),
        (CLI, "link.key", "passphrase", "symbolic link"),
        (CLI, "user.locked", "wrong", "wrong passphrase"),
        (SERVER, "user.locked", "wrong", "wrong passphrase"),
        (AGENT, "user.locked", "", "no terminal to ask"),
    ],
)
def test_a_program_refuses_a_key_without_showing_it(
    vault: Vault, program: str, key: str, secret: str, reason: str
) -> None:
    path, folder = vault.folder / key, vault.home / "keys"
    folder.mkdir(mode=0o700)
    if program == SERVER:
        (folder / "server.key").write_bytes(path.read_bytes())
        (folder / "server.key").chmod(path.stat().st_mode & 0o777)
    words, code = {
        SERVER: (server(vault, 0), 1),
        AGENT: (command(AGENT, "--url=http://h", "--colony=c", f"--key-file={path}"), 2),
        CLI: (command(CLI, "key", "show", "--reveal", str(path)), 2),
    }[program]
    given = {"COLONIST_PASSPHRASE_FILE": vault.path(secret)} if secret else {}
    done = run(vault, words, COLONIES_SERVER_ID=vault.keys["owner"].id, **given)
    assert (done.returncode, reason in done.stderr) == (code, True), done.stderr


def test_settings_are_shown_without_secrets(vault: Vault) -> None:
    flags = ("--check", "--url=mqtt://h", "--colony=c", f"--password-file={vault.path('broker')}")
    for given in (
        {"COLONIES_PRVKEY": vault.keys["executor"].reveal()},
        {"COLONIES_PRVKEY_FILE": vault.path("executor.locked"), **vault.unlocked_by},
    ):
        done = run(vault, command(AGENT, *flags), **given)
        assert vault.keys["executor"].id in done.stdout, done.stderr


# -- crashes: the locals of every frame are in the traceback


@pytest.mark.parametrize(
    "crash", ["colonist_server.main:_listen", "colonist_server.main:app.build"]
)
def test_a_server_that_crashes_shows_none(vault: Vault, crash: str) -> None:
    ring(vault, "locked")
    done = run(
        vault,
        server(vault, 0, crash=crash),
        COLONIES_SERVER_ID=vault.keys["owner"].id,
        COLONIST_ARCHIVE_FILE=vault.path("address"),
        **vault.unlocked_by,
    )
    assert PLANTED in done.stderr
    assert "server_keys = ServerKeys(" in done.stderr  # the locals are there


@pytest.mark.parametrize(
    "crash", ["colonist_agent.main:Birth", "colonist_client.mqtt_connection:Connection.__init__"]
)
def test_an_agent_that_crashes_shows_none(vault: Vault, crash: str) -> None:
    port = free_ports(1)[0]
    flags = (
        f"--url=mqtt://127.0.0.1:{port}",
        "--colony=c",
        f"--password-file={vault.path('broker')}",
    )
    given = vault.unlocked_by | {"COLONIST_AGENT_KEY_FILE": vault.path("executor.locked")}
    done = run(vault, command(AGENT, *flags, crash=crash), **given)
    assert PLANTED in done.stderr
    assert f"Identity({vault.keys['executor'].id}" in done.stderr


@pytest.mark.parametrize(
    "crash", ["colonist_bridge.main:_limits", "colonist_client.mqtt_connection:Connection.__init__"]
)
def test_a_bridge_that_crashes_shows_none(vault: Vault, crash: str) -> None:
    port = free_ports(1)[0]
    flags = ("--name=b", "--server-url=http://127.0.0.1:1", f"--broker-url=mqtt://127.0.0.1:{port}")
    given = {"COLONIST_BRIDGE_PASSWORD_FILE": vault.path("broker")}
    done = run(vault, command(BRIDGE, *flags, crash=crash), **given)
    assert PLANTED in done.stderr
    assert "BridgeConfig(" in done.stderr


def test_a_server_that_crashes_on_its_way_to_etcd_shows_none(vault: Vault) -> None:
    ring(vault, "key")
    store = f"--store=etcd://127.0.0.1:1/p?user=u&password-file={vault.path('etcd')}"
    crash = "colonist_server.store.etcd.channel:Channel.__init__"
    done = run(
        vault, server(vault, 0, store, crash=crash), COLONIES_SERVER_ID=vault.keys["owner"].id
    )
    assert PLANTED in done.stderr
    assert "user='u'" in done.stderr  # the address is among the locals


def test_a_command_that_crashes_shows_none(vault: Vault) -> None:
    words = command(
        CLI, "executor", "list", "--colony=c", f"--key={vault.path('user.locked')}",
        crash="colonist_client.http:HttpTransport.__init__",
    )  # fmt: skip
    done = run(vault, words, **vault.unlocked_by)
    assert (done.returncode, PLANTED in done.stderr) == (70, True), done.stderr


def test_a_bridge_without_its_broker_shows_none(vault: Vault) -> None:
    port = free_ports(1)[0]
    flags = ("--name=b", "--server-url=http://127.0.0.1:1", f"--broker-url=mqtt://127.0.0.1:{port}")
    given = {"COLONIST_BRIDGE_PASSWORD_FILE": vault.path("broker")}
    with started(command(BRIDGE, *flags), vault.home, until="refused", **given) as made:
        assert made.end(signal.SIGTERM) == 0
        vault.closed(made.text)


@pytest.mark.parametrize("crash", ["", "colonist_client.http:HttpTransport.__init__"])
def test_a_device_that_cannot_join_does_not_show_its_card(vault: Vault, crash: str) -> None:
    port = free_ports(1)[0]
    card = Card(f"127.0.0.1:{port}", vault.keys["server"].id, COLONY, WORDS["code"])
    words = command(
        CLI, "enroll", "join", "-", f"--key={vault.path('executor.locked')}",
        f"--config={vault.home}/agent.toml", crash=crash,
    )  # fmt: skip
    done = run(vault, words, f"{pack_card(card)}\n", **vault.unlocked_by)
    assert (done.returncode, PLANTED in done.stderr) == ((70, True) if crash else (5, False))


def test_keys_of_the_command_line_are_in_their_files_only(vault: Vault) -> None:
    """Made, put under a passphrase, and taken off: what is left behind is not the key."""
    path = vault.home / "keys" / "ada.key"
    path.parent.mkdir(mode=0o700)
    os.link(vault.folder / "user.key", path)
    steps = (("encrypt", vault.unlocked_by), ("show", {}), ("decrypt", vault.unlocked_by))
    for word, given in steps:
        done = run(vault, command(CLI, "key", word, str(path)), **given)
        assert done.stdout.strip() == vault.keys["user"].id, done.stderr
        held = leaks.in_files(path.parent, vault.secrets, but=[])
        assert bool(held) is (word == "decrypt")
        assert [each.name for each in path.parent.iterdir()] == ["ada.key"]
