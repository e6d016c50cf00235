"""The commands as a whole: their help, their reference, how fast they start."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from colonist_cli.main import app
from scripts import make_cli_reference
from tests.support.colonist import BIN

ROOT = make_cli_reference.typer.main.get_command(app)
LEAVES = [name.split()[1:] for name, _ in make_cli_reference.leaves(ROOT, "colonist")]


def test_the_reference_is_what_the_script_makes() -> None:
    assert make_cli_reference.FILE.read_text() == make_cli_reference.text()


@pytest.mark.parametrize("words", [[], *LEAVES], ids=" ".join)
def test_every_command_has_help(words: list[str]) -> None:
    for flag in ("--help", "-h"):
        done = CliRunner().invoke(app, [*words, flag], obj={})
        assert done.exit_code == 0
        assert "Usage: " in done.output


@pytest.mark.parametrize(("name", "command"), make_cli_reference.leaves(ROOT, "colonist"))
def test_every_command_says_what_it_does_and_every_option_too(name: str, command: object) -> None:
    assert command.help, name  # type: ignore[attr-defined]
    for param in command.params:  # type: ignore[attr-defined]
        assert param.help, f"{name}: {param.name}"


def test_an_unknown_command_or_option_is_exit_code_2() -> None:
    for words in (["nosuch"], ["stats", "--nosuch"], ["call"], ["stats", "-o", "yaml"]):
        assert CliRunner().invoke(app, words, obj={}).exit_code == 2


def test_devices_of_a_bridge_are_not_dropped_without_a_word() -> None:
    words = ["bridge", "acl", "--bridge", "b", "--device", "a" * 64]
    done = CliRunner().invoke(app, words, obj={})
    assert (done.exit_code, done.stdout) == (2, "")
    assert "--dynamic" in done.stderr
    assert "a" * 64 in CliRunner().invoke(app, [*words, "--dynamic"], obj={}).stdout


def test_version_needs_no_server() -> None:
    done = CliRunner().invoke(app, ["--version"], obj={})
    assert (done.exit_code, done.output.split()[0]) == (0, "colonist")


def test_help_loads_nothing_heavy() -> None:
    """A second of imports for every `--help` would be felt; so none of the programs is loaded."""
    code = (
        "import sys; from typer.testing import CliRunner; from colonist_cli.main import app; "
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0; "
        "print([name for name in ('aiohttp', 'asyncio', 'msgspec', 'coincurve', 'amqtt', 'paho', "
        "'colonist_protocol', 'colonist_server', 'colonist_agent') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    heavy = done.stdout.strip()
    assert heavy in ("[]", "['asyncio']")


def test_a_shell_completes_commands_and_options() -> None:
    script = CliRunner().invoke(app, ["completion", "bash"], obj={}).output
    asked = "COMP_WORDS=(colonist workflow submit --f); COMP_CWORD=3; _colonist_completion colonist"
    done = subprocess.run(
        ["/bin/bash", "-c", f'{script}\n{asked}; echo "${{COMPREPLY[@]}}"'],
        env={"PATH": f"{BIN}:/usr/bin:/bin", "LANG": "C.UTF-8"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["--follow"]
    for shell in ("zsh", "fish"):
        script = CliRunner().invoke(app, ["completion", shell], obj={}).output
        assert "_COLONIST_COMPLETE" in script
    assert CliRunner().invoke(app, ["completion", "dos"], obj={}).exit_code == 2


def test_the_script_is_installed() -> None:
    assert (BIN / "colonist").exists()
