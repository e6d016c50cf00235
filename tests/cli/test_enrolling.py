"""Cards, QR codes and hooks of `colonist enroll`, without a server."""

from __future__ import annotations

import stat
import sys
import tomllib
from pathlib import Path

import pytest
import segno

from colonist_cli import enrolling
from colonist_cli.enrolling import Hook
from colonist_cli.exits import CliError
from colonist_cli.qr import BORDER, drawn
from colonist_protocol.claims import Card, Claim, Enrolled, pack_card, read_card
from colonist_protocol.executor import Executor
from tests.support.enrolling import code_of
from tests.support.rooms import key

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
    assert await Hook.read("sleep 60").decide(WAITING) is None
    assert "took over" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "  ", "'", "/nowhere/at/all"])
async def test_a_hook_that_cannot_run_says_so(text: str) -> None:
    with pytest.raises(CliError, match="--hook"):
        await Hook.read(text).decide(WAITING)


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
        enrolling.write_config(path, CARD, executor, server="https://x", key_file=key_file)
