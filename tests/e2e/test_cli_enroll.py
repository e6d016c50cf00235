"""Enrolment through the command: a card is made, a device joins by it and works."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import colonist
from tests.support.colonist import run

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("up")]


def card(home: Path, *options: str) -> dict[str, Any]:
    made = run("enroll", "create", "--type", "sensor", *options, "-o", "json", home=home)
    assert made.returncode == 0, made.stderr
    return json.loads(made.stdout)


def test_a_device_joins_by_a_card_and_works(home: Path, tmp_path: Path) -> None:
    made = card(home, "--count", "2", "--expires", "1h")
    config = tmp_path / "agent.toml"
    options = ("--key", str(tmp_path / "agent.key"), "--config", str(config))
    joined = run("enroll", "join", made["card"], *options, home=tmp_path)
    assert joined.returncode == 0, joined.stderr
    name = joined.stdout.strip()
    assert name.startswith("sensor-")
    with colonist.running(
        "agent", "run", "--config", str(config), home=tmp_path, until="functions_announced"
    ):
        done = run("call", "echo", "hello", "--type", "sensor", home=home)
        assert (done.returncode, done.stdout.strip()) == (0, "hello"), done.stderr
    shown = run("enroll", "list", home=home).stdout
    assert "1 of 2" in shown
    again = run("enroll", "join", made["card"], *options, home=tmp_path)
    assert (again.returncode, again.stdout.strip()) == (0, name), again.stderr
    elsewhere = run("enroll", "join", made["card"], *options, "--server", "https://x", home=home)
    assert elsewhere.returncode == 7
    assert "not overwritten" in elsewhere.stderr
    config.unlink()
    again = run("enroll", "join", made["card"], *options, home=tmp_path)
    assert again.stdout.strip() == name
    claim = made["claim"]["claim"][:12]
    assert run("enroll", "remove", claim, "--executors", home=home).returncode == 0
    assert name in run("executor", "list", home=home).stdout
    config.unlink()
    removed = run("enroll", "join", made["card"], *options, home=tmp_path)
    assert removed.returncode != 0


def test_a_hook_approves_and_rejects(home: Path, tmp_path: Path) -> None:
    made = card(home, "--count", "9", "--ask")
    for hw in ("good", "bad"):
        options = ("--key", str(tmp_path / f"{hw}.key"), "--config", str(tmp_path / f"{hw}.toml"))
        joined = run("enroll", "join", made["card"], *options, "--hw", hw, home=tmp_path)
        assert "waits for approval" in joined.stderr
    waiting = json.loads(run("enroll", "list", "--waiting", "-o", "json", home=home).stdout)
    assert {each["hw"] for each in waiting} == {"good", "bad"}
    hook = tmp_path / "hook"
    hook.write_text('#!/bin/sh\ngrep -q \'"hw":"good"\'\n')
    hook.chmod(0o755)
    settled = run("enroll", "approve", "--hook", str(hook), home=home)
    assert sorted(line.split(": ")[1] for line in settled.stderr.splitlines()) == [
        "approved",
        "rejected",
    ]
    found = json.loads(run("enroll", "list", "--executors", "-o", "json", home=home).stdout)
    states = {each["hw"]: each["state"] for each in found if each["claim"] == waiting[0]["claim"]}
    assert states == {"good": 1, "bad": 2}


def test_a_card_is_drawn_and_told(home: Path) -> None:
    made = run("enroll", "create", "--type", "sensor", home=home)
    lines = made.stdout.splitlines()
    assert lines[-3].startswith("card  colonist:1:127.0.0.1:")
    assert lines[-2].split()[1] in lines[-3]
    assert sum("█" in line for line in lines) > 20


def test_the_policy_is_settled_and_shown(home: Path) -> None:
    shown = run("colony", "policy", home=home)
    assert "allow" in shown.stdout, shown.stderr
    settled = run("colony", "policy", "--plain-requests", "refuse", home=home)
    assert "refuse" in settled.stdout, settled.stderr
    assert "refuse" in run("colony", "policy", home=home).stdout  # the command seals
    assert run("call", "echo", "1", home=home).stdout == "1\n"
    assert run("colony", "policy", "--plain-requests", "allow", home=home).returncode == 0
    assert run("colony", "policy", "--plain-requests", "x", home=home).returncode == 2


def test_the_servers_key_is_changed_in_two_steps(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    made = run("key", "new", str(folder / "server.key"), home=tmp_path)
    first = run("key", "show", str(folder / "server.key"), home=tmp_path).stdout.strip()
    assert made.returncode == 0, made.stderr
    options = ("server", "change-key", "--keys", str(folder))
    ready = run(*options, home=tmp_path)
    taken = run(*options, "--take", home=tmp_path)
    assert ready.stdout == taken.stdout != first
    assert "start the server again" in taken.stderr
    kept = run("key", "show", str(folder / "server.key.1"), home=tmp_path).stdout.strip()
    assert kept == first
    assert run(*options, "--take", home=tmp_path).returncode == 2
