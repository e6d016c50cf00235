"""Cards, QR codes and hooks of `colonist enroll`, without a server."""

from __future__ import annotations

import asyncio
import io
import os
import stat
import sys
import textwrap
import tomllib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self, cast

import msgspec
import pytest
import segno

from colonist_cli import enrolling
from colonist_cli.command import guarded
from colonist_cli.commands.enroll import create_claim
from colonist_cli.enrolling import Hook
from colonist_cli.exits import CliError, Exit
from colonist_cli.output import Form
from colonist_cli.qr import BORDER, drawn
from colonist_cli.settings import Flags, Role
from colonist_cli.shell import Shell
from colonist_client.caller import OutcomeUnknownError
from colonist_client.client import Client
from colonist_client.failure import ServerError
from colonist_client.retry import Backoff
from colonist_client.transport import UnreachableError
from colonist_protocol.claims import AddClaim, Card, Claim, Enrolled, pack_card, read_card
from colonist_protocol.envelope import Failure
from colonist_protocol.executor import Executor, ExecutorState
from tests.support.enrolling import code_of
from tests.support.rooms import key

ROOT = Path(__file__).parents[2]
SERVER = key("server").id
CARD = Card("colony.example:50080", SERVER, "home", code_of("card"))
WAITING = Enrolled(
    executorname="sensor-01234567",
    executorid=key("device").id,
    executortype="sensor",
    state=0,
    hw="board 7",
    claim=key("claim").id,
    enrolled=1,
)


@pytest.mark.parametrize("is_inverted", [False, True])
def test_a_qr_code_is_drawn_dot_for_dot(is_inverted: bool) -> None:
    text = pack_card(CARD)
    lines = drawn(text, is_inverted=is_inverted).splitlines()
    assert len({len(line) for line in lines}) == 1
    dots = {"█": (0, 0), "▀": (0, 1), "▄": (1, 0), " ": (1, 1)}
    found = [[dots[char][row] for char in line] for line in lines for row in (0, 1)]
    wanted = [list(row) for row in segno.make(text, error="m").matrix_iter(border=BORDER)]
    wanted += [[0] * len(wanted[0])] * (len(wanted) % 2)
    assert found == [[int(dot != is_inverted) for dot in row] for row in wanted]


def test_a_new_card_has_a_code_of_its_own_and_can_be_read() -> None:
    cards = [enrolling.new_card("https://colony.example", SERVER, "home", "") for _ in range(3)]
    assert len({card.code for card in cards}) == 3
    assert [read_card(pack_card(card)) for card in cards] == cards
    assert cards[0].host == "colony.example"
    assert enrolling.new_card("http://10.0.0.1:1", SERVER, "home", "edge:2").host == "edge:2"


def test_a_card_of_this_machine_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    card = enrolling.new_card("http://127.0.0.1:50080", SERVER, "home", "")
    assert card.host == "127.0.0.1:50080"
    assert "--host" in capsys.readouterr().err
    assert enrolling.address_of(card) == "http://127.0.0.1:50080"
    assert enrolling.address_of(CARD) == "https://colony.example:50080"


def test_hardware_names_the_machine_but_does_not_tell_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "id").write_text("0123456789abcdef\n")
    monkeypatch.setattr(enrolling, "MACHINE_ID", tmp_path / "id")
    named = enrolling.hardware()
    assert named.startswith("machine-")
    assert "0123456789abcdef" not in named
    assert enrolling.hardware() == named
    monkeypatch.setattr(enrolling, "MACHINE_ID", tmp_path / "none")
    assert enrolling.hardware() != named


def test_a_claim_is_known_by_how_its_id_begins() -> None:
    claims = [
        Claim(claim=id, executortype="t", count=1, used=0, expires=1, approval="person")
        for id in ("ab" * 32, "ac" * 32)
    ]
    assert enrolling.one_of(claims, "ac").claim == "ac" * 32
    for given, told in (("a", "2 claims"), ("b", "no claim")):
        with pytest.raises(CliError, match=told):
            enrolling.one_of(claims, given)


class Claims:
    """A shell's client that keeps the claims that are made."""

    def __init__(self) -> None:
        self.made: list[AddClaim] = []

    @asynccontextmanager
    async def client(self, role: Role) -> AsyncGenerator[Self]:
        assert role is Role.COLONY
        yield self

    async def add_claim(self, wanted: AddClaim) -> Claim:
        self.made.append(wanted)
        return Claim(
            claim=wanted.claim,
            executortype=wanted.executortype,
            count=wanted.count,
            used=0,
            expires=wanted.expires,
            approval=wanted.approval,
        )


@pytest.fixture
def claims(monkeypatch: pytest.MonkeyPatch) -> Claims:
    made = Claims()
    monkeypatch.setattr(Shell, "client", lambda _, role: made.client(role))
    return made


def create(home: Path, form: Form = Form.TABLE) -> Exit:
    environment = {"COLONIST_SERVER_ID": SERVER, "COLONIES_COLONY_NAME": "home"}
    flags = Flags(home=home, server="https://colony.example")
    return guarded(lambda: create_claim(Shell(environment, flags, form), type="sensor"))


def test_a_card_that_the_terminal_cannot_draw_is_told(
    claims: Claims,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", shown)
    assert create(tmp_path) is Exit.OK
    shown.seek(0)
    card, code, claim = (line.split()[1] for line in shown)
    assert read_card(card).code == code
    assert claim == claims.made[0].claim
    assert "QR code" in capsys.readouterr().err


def test_a_card_that_cannot_be_drawn_makes_no_claim(
    claims: Claims, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("colonist_cli.qr.drawn", untold)
    assert create(tmp_path) is Exit.BUG
    assert claims.made == []


@pytest.mark.parametrize("form", Form)
def test_a_card_that_is_lost_names_its_claim(
    form: Form,
    claims: Claims,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:  # noqa: PTH123 - a device
        monkeypatch.setattr(sys, "stdout", full)
        assert create(tmp_path, form) is Exit.USAGE
    (wanted,) = claims.made
    told = capsys.readouterr().err
    assert f"colonist enroll remove {wanted.claim[:12]}" in told
    assert "No space left" in told


@pytest.mark.parametrize(("code", "verdict"), [(0, True), (1, False), (2, None), (-9, None)])
async def test_a_hook_decides_by_its_exit_code(code: int, verdict: bool | None) -> None:
    script = (
        "import json, os, sys; found = json.load(sys.stdin);"
        "assert found['hw'] == 'board 7';"
        f"code = {code};"
        "os.kill(os.getpid(), 9) if code < 0 else sys.exit(code)"
    )
    hook = Hook(command=(sys.executable, "-c", script))
    assert await hook.decide(WAITING) is verdict


async def test_a_hook_that_takes_for_ever_decides_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(enrolling, "HOOK_S", 0.05)
    assert await Hook.read("sleep 60", {}).decide(WAITING) is None
    assert "took over" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "  ", "'", "/nowhere/at/all", "no-such-program x", "/"])
def test_a_hook_that_cannot_run_says_so_before_anybody_waits(text: str) -> None:
    with pytest.raises(CliError, match="--hook") as caught:
        Hook.read(text, {"PATH": "/bin"})
    assert caught.value.exit is Exit.USAGE


async def test_a_hook_that_went_away_says_so(tmp_path: Path) -> None:
    script = tmp_path / "hook"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o700)
    hook = Hook.read(str(script), {})
    assert await hook.decide(WAITING) is True
    script.unlink()
    with pytest.raises(CliError, match="--hook"):
        await hook.decide(WAITING)


async def test_a_hook_gets_the_environment_less_our_secrets(
    capfd: pytest.CaptureFixture[str],
) -> None:
    secret = {
        f"{name}{ending}": "SECRET"
        for name in (
            "COLONIES_PRVKEY",
            "COLONIES_COLONY_PRVKEY",
            "COLONIES_SERVER_PRVKEY",
            "COLONIST_PASSPHRASE",
            "COLONIST_ETCD_PASSWORD",
            "COLONIST_ARCHIVE",
        )
        for ending in ("", "_FILE")
    }
    plain = {"PATH": os.environ["PATH"], "COLONIES_COLONY_NAME": "home", "BOOKS": "/srv/books"}
    hook = Hook.read("sh -c 'env; cat > /dev/null'", secret | plain)
    assert "SECRET" not in repr(hook)
    assert await hook.decide(WAITING) is True
    given = capfd.readouterr().out
    assert "PRVKEY" not in given
    assert "SECRET" not in given
    assert all(f"{name}={value}\n" in given for name, value in plain.items())


@pytest.mark.parametrize(
    ("hw", "verdict"),
    [
        ("board 7", True),
        ("board", False),
        ("--version", False),
        ("", False),
        ("-f/dev/stdin", False),
        ('board 7","hw":"', False),
        (".*", False),
    ],
)
async def test_the_hook_of_the_guide_lets_in_what_is_in_the_books(
    tmp_path: Path, hw: str, verdict: bool
) -> None:
    guide = (ROOT / "docs/howto/enrol-devices.md").read_text()
    lines = guide.partition("    #!/bin/sh\n")[2].split("\n\n")[0]
    script = tmp_path / "in-the-books"
    script.write_text("#!/bin/sh\n" + textwrap.dedent(lines))
    script.chmod(0o700)
    (tmp_path / "boards.txt").write_text("board 6\nboard 7\n")
    hook = Hook.read(f"sh -c 'cd {tmp_path} && ./in-the-books'", {"PATH": os.environ["PATH"]})
    assert await hook.decide(msgspec.structs.replace(WAITING, hw=hw)) is verdict


class Queue:
    """A client whose server has a queue of those who wait, and answers as scripted."""

    def __init__(self, *names: str) -> None:
        self.waiting = [msgspec.structs.replace(WAITING, executorname=name) for name in names]
        self.faults: dict[str, list[Exception]] = {}
        self.asked = asyncio.Event()

    async def enrolled(self, colony: str, *, state: int) -> list[Enrolled]:
        assert (colony, state) == ("home", ExecutorState.PENDING)
        self._fail("list")
        return list(self.waiting)

    async def approve_executor(self, colony: str, name: str) -> None:
        assert colony == "home"
        self._fail(name)
        self.waiting = [each for each in self.waiting if each.executorname != name]
        if not self.waiting:
            self.asked.set()

    def _fail(self, what: str) -> None:
        if faults := self.faults.get(what):
            raise faults.pop(0)


def refusal(status: int, text: str) -> ServerError:
    return ServerError(Failure(status=status, message=text, code="x", retry_after_s=0))


def at_once(backoff: Backoff, failures: int, *, at_least_s: float) -> float:
    """Backoff without a pause."""
    assert (backoff.floor_s, at_least_s) == (0.0, 0.0)
    return 0.0 * failures


def untold(name: str, what: str) -> None:
    """Tell nobody."""


YES = Hook(command=("true",), environment={"PATH": os.environ["PATH"]})


@pytest.mark.parametrize("status", [404, 409])
async def test_one_that_is_gone_does_not_keep_the_others_waiting(
    status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    queue, told = Queue("a", "b"), list[str]()
    queue.faults["a"] = [refusal(status, "gone meanwhile")]
    await enrolling.settle(cast("Client", queue), "home", YES, lambda name, _: told.append(name))
    assert told == ["b"]
    assert "a: gone meanwhile" in capsys.readouterr().err


async def test_following_goes_on_over_a_bad_link(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(enrolling, "POLL_S", 0.0)
    monkeypatch.setattr(Backoff, "delay_s", at_once)
    queue = Queue("a", "b")
    queue.faults["list"] = [UnreachableError("no route"), refusal(503, "out of disk")]
    queue.faults["b"] = [OutcomeUnknownError("no reply"), refusal(429, "busy")]
    work = asyncio.create_task(enrolling.settle_on(cast("Client", queue), "home", YES, untold))
    async with asyncio.timeout(10):
        await asyncio.wait(
            {work, asyncio.create_task(queue.asked.wait())}, return_when=asyncio.FIRST_COMPLETED
        )
    assert not work.done()
    work.cancel()
    told = capsys.readouterr().err
    for each in ("no route", "out of disk", "no reply", "busy"):
        assert f"{each}; trying again" in told


async def test_following_ends_where_it_is_refused_for_good() -> None:
    queue = Queue("a")
    queue.faults["list"] = [refusal(403, "not the owner")]
    with pytest.raises(ServerError, match="not the owner"):
        await enrolling.settle_on(cast("Client", queue), "home", YES, untold)


def test_joining_again_needs_the_same_settings_and_the_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, key_file = tmp_path / "agent.toml", tmp_path / "agent.key"
    executor = Executor(
        executorid=key("device").id, executortype="t", executorname="t-1", colonyname="home"
    )

    def again(card: Card = CARD, server: str = "https://x") -> bool:
        return enrolling.is_agent_of(path, card, server=server, key_file=key_file)

    enrolling.write_config(path, CARD, executor, server="https://x", key_file=key_file)
    assert not again()  # another key would be made
    key_file.write_text("")
    path.write_text(path.read_text() + 'log = "debug"\n')
    before = path.read_text()
    assert again()
    assert not again(server="https://y")
    assert not again(card=Card(CARD.host, SERVER, "other", CARD.code))
    enrolling.write_config(path, CARD, executor, server="https://x", key_file=key_file)
    assert path.read_text() == before
    assert "is there already" in capsys.readouterr().err
    path.write_text("[")
    assert not again()


def test_the_settings_of_an_agent_have_the_pin_and_overwrite_nothing(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    executor = Executor(
        executorid=key("device").id, executortype="t", executorname="t-1", colonyname="home"
    )
    key_file = tmp_path / "agent.key"
    enrolling.write_config(path, CARD, executor, server="https://x", key_file=key_file)
    written = tomllib.loads(path.read_text())
    assert written["server_id"] == SERVER
    assert written["key_file"] == str(key_file)
    assert CARD.code not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(CliError, match="not overwritten"):
        enrolling.write_config(path, CARD, executor, server="https://y", key_file=key_file)
