"""Workflows, generators, crons and events through the command, against a real colony."""

import json
import os
import pty
import re
import subprocess
from pathlib import Path

import pytest

from tests.support import colonist
from tests.support.colonist import Running, run

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("up")]

DIAMOND = [
    {"nodename": "read", "funcname": "echo", "args": [1]},
    {"nodename": "mean", "funcname": "echo", "conditions": {"dependencies": ["read"]}},
    {"nodename": "peak", "funcname": "echo", "conditions": {"dependencies": ["read"]}},
    {
        "nodename": "show",
        "funcname": "echo",
        "args": ["shown"],
        "conditions": {"dependencies": ["mean", "peak"]},
    },
]
FOR_NOBODY = [{"nodename": "a", "funcname": "f", "conditions": {"executortype": "nobody"}}]


def made(home: Path, name: str, value: object) -> str:
    (home / name).write_text(json.dumps(value))
    return name


def test_a_workflow_runs_and_its_last_results_are_printed(home: Path) -> None:
    file = made(home, "diamond.json", DIAMOND)
    done = run("workflow", "submit", file, "--wait", home=home)
    assert (done.returncode, done.stdout) == (0, "shown\n")
    assert "4 of 4 done: 4 success" in done.stderr
    id = done.stderr.split()[1]
    shown = run("workflow", "get", id, home=home).stdout
    assert "└─ show ↑ above" in shown
    assert shown.count("success") == 6
    listed = json.loads(run("workflow", "list", "-o", "json", home=home).stdout)
    assert listed[0]["processgraphid"] == id
    assert id in run("workflow", "list", "--state", "success", home=home).stdout
    assert id not in run("workflow", "list", "--state", "failed", home=home).stdout
    members = json.loads(run("workflow", "members", id, "-o", "json", home=home).stdout)
    assert [each["spec"]["nodename"] for each in members] == ["read", "mean", "peak", "show"]
    process = run("process", "get", members[3]["processid"], home=home).stdout
    assert f"workflow      {id}" in process
    assert members[1]["processid"] in process
    assert members[2]["processid"] in process
    assert json.loads(run("workflow", "get", id, "-o", "json", home=home).stdout)["edges"]
    assert run("workflow", "remove", id, home=home).returncode == 0
    assert run("workflow", "get", id, home=home).returncode == 3


def test_a_workflow_is_followed_line_by_line_in_a_pipe(home: Path) -> None:
    done = run("workflow", "submit", "-", "--follow", home=home, input=json.dumps(DIAMOND))
    assert (done.returncode, done.stdout) == (0, "shown\n")
    ended = re.findall(r"success +(\w+)", done.stderr)
    assert sorted(ended) == ["mean", "peak", "read", "show"]
    assert ended[0] == "read"
    assert ended[-1] == "show"


def test_a_workflow_is_drawn_anew_on_a_terminal(home: Path) -> None:
    file = made(home, "diamond.json", DIAMOND)
    primary, secondary = pty.openpty()
    with subprocess.Popen(
        [str(colonist.SCRIPT), "workflow", "submit", file, "--follow"],
        env=colonist.environment(home, TERM="xterm", COLUMNS="100", LINES="20"),
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=secondary,
        text=True,
    ) as program:
        os.close(secondary)
        shown = b""
        while piece := _read(primary):
            shown += piece
        os.close(primary)
        assert program.stdout is not None
        assert program.stdout.read() == "shown\n"
    assert program.returncode == 0
    text = shown.decode()
    assert "\x1b[32msuccess" in text
    assert "show ↑ above" in text


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other end was closed
        return b""


def test_a_workflow_that_fails_is_exit_code_1_with_the_cause(home: Path) -> None:
    bad = [DIAMOND[0] | {"funcname": "checksum", "args": ["/etc/passwd"]}, *DIAMOND[1:]]
    done = run("workflow", "submit", made(home, "bad.json", bad), "--wait", home=home)
    assert (done.returncode, done.stdout) == (1, "")
    assert "failed: read: path is not below an allowed root" in done.stderr.splitlines()[-1]


def test_a_workflow_is_cancelled(home: Path) -> None:
    file = made(home, "nobody.json", FOR_NOBODY)
    id = run("workflow", "submit", file, home=home).stdout.strip()
    waiting = run("workflow", "get", id, home=home).stdout
    assert "a  waiting" in waiting
    assert run("workflow", "cancel", id, home=home).returncode == 0
    assert run("workflow", "cancel", id, home=home).returncode == 7
    assert "cancelled" in run("workflow", "get", id, home=home).stdout
    done = run("workflow", "submit", file, "--wait", "--timeout", "0.3", home=home)
    assert (done.returncode, done.stdout) == (6, "")


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (("workflow", "submit", "none.json"), 2, "none.json: No such file"),
        (("workflow", "get", "abc"), 2, "'abc' is no workflow id"),
        (("workflow", "get", "0" * 64), 4, "refused"),
        (("watch", "0" * 64), 4, "refused"),
        (("watch", "abc"), 2, "'abc' is no process id"),
        (("watch", "0" * 64, "--state", "failed"), 2, "for a whole colony"),
        (("watch", "--server", "http://127.0.0.1:1"), 5, "Connection refused"),
        (("watch", "--key", "state/keys/lonely.key"), 5, "unverified, something answered: 403"),
        (("cron", "get", "none"), 3, "there is no cron 'none'"),
        (("cron", "add", "--name", "c", "--workflow", "nobody.json"), 2, "say one of: --every"),
        (("generator", "get", "none"), 3, "generator"),
        (("generator", "add", "--name", "g", "--trigger", "2"), 2, "what does it start?"),
        (("history", "--since", "soon"), 2, "is no length of time"),
        (("history", "--executor", "nobody"), 3, "nobody"),
        (("colony", "history", "--key", "state/keys/user.key"), 4, "refused"),
        (("user", "rotate-key", "nobody"), 2, "nobody.key: No such file"),
    ],
)
def test_errors_are_one_line_with_an_exit_code(
    home: Path, arguments: tuple[str, ...], code: int, line: str
) -> None:
    made(home, "nobody.json", FOR_NOBODY)
    run("key", "new", "lonely", home=home)
    done = run(*arguments, home=home)
    assert (done.returncode, done.stdout) == (code, "")
    assert line in done.stderr
    assert done.stderr.startswith("colonist: ")
    assert done.stderr.count("\n") == 1


def test_a_generator_makes_workflows_of_arguments(home: Path) -> None:
    node = {"nodename": "all", "funcname": "echo", "label": "packed"}
    file = made(home, "all.json", [node])
    arguments = ("--name", "pairs", "--trigger", "2", "--timeout", "1h", "--workflow", file)
    id = run("generator", "add", *arguments, home=home).stdout.strip()
    with colonist.running("watch", home=home, until="watching the colony") as watching:
        assert run("generator", "pack", "pairs", "a", "b", "c", home=home).returncode == 0
        watching.until("echo(a, b)")
    assert run("generator", "pack", id, "-", home=home, input="d\ne\n").returncode == 0
    found = json.loads(run("generator", "get", "pairs", "-o", "json", home=home).stdout)
    assert (found["generatorid"], found["trigger"], found["timeout"]) == (id, 2, 3600)
    assert found["queuesize"] == 1
    shown = run("generator", "get", "pairs", home=home).stdout
    assert "starts     all: echo" in shown
    assert "pairs" in run("generator", "list", home=home).stdout
    assert run("generator", "add", *arguments, home=home).returncode == 7
    assert run("generator", "remove", "pairs", home=home).returncode == 0
    told = run("generator", "pack", id, "x", home=home)
    assert told.returncode == 3
    assert told.stderr.startswith("0 arguments were packed\n")


def test_a_generator_of_a_file(home: Path) -> None:
    spec = [{"nodename": "all", "funcname": "echo"}]
    file = made(home, "g.json", {"name": "file", "trigger": 3, "workflowspec": spec})
    assert run("generator", "add", file, "--trigger", "4", home=home).returncode == 0
    found = json.loads(run("generator", "get", "file", "-o", "json", home=home).stdout)
    assert found["trigger"] == 4
    assert run("generator", "remove", "file", home=home).returncode == 0


def test_a_cron_is_added_shown_run_and_removed(home: Path) -> None:
    file = made(home, "tick.json", [{"nodename": "tick", "funcname": "echo", "args": ["tick"]}])
    when = ("--at", "0 30 3 * * *", "--zone", "Europe/Berlin", "--wait-previous")
    arguments = ("cron", "add", "--name", "nightly", "--workflow", file, *when)
    dry = run(*arguments, "--dry-run", home=home)
    assert (dry.returncode, dry.stdout) == (0, "")
    added = run(*arguments, home=home)
    assert added.stderr == dry.stderr
    assert len(re.findall(r"next run  .* 03:30:00 CES?T", added.stderr)) == 5
    id = added.stdout.strip()
    workflow = run("cron", "run", "nightly", home=home).stdout.strip()
    assert run("workflow", "get", workflow, home=home).returncode == 0
    shown = run("cron", "get", id, home=home).stdout
    assert f"workflow   {workflow}" in shown
    assert "until the run before has ended" in shown
    listed = json.loads(run("cron", "list", "-o", "json", home=home).stdout)
    assert [(each["name"], each["cronid"]) for each in listed] == [("nightly", id)]
    assert workflow in run("cron", "list", home=home).stdout
    assert run("cron", "remove", "nightly", home=home).returncode == 0
    assert run("cron", "get", id, home=home).returncode == 3


def test_a_cron_by_interval_runs(home: Path) -> None:
    file = made(home, "tick.json", [{"nodename": "tick", "funcname": "echo", "args": ["tick!"]}])
    with colonist.running("watch", home=home, until="watching the colony") as watching:
        arguments = ("--name", "often", "--every", "1s", "--random", "--workflow", file)
        added = run("cron", "add", *arguments, home=home)
        assert "then once in each 1s, at random" in added.stderr
        watching.until("echo(tick!)")
    assert run("cron", "remove", "often", home=home).returncode == 0


def test_a_process_is_watched_to_its_end(home: Path) -> None:
    id = run("submit", "sleep", "1", home=home).stdout.strip()
    done = run("watch", id, "-o", "json", home=home)
    states = [json.loads(line)["state"] for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert states == [0, 1, 2][-len(states) :]  # it may have begun, or ended, before we look
    assert run("watch", id, home=home).stdout.count(id) == 1


def test_a_workflow_is_watched_to_its_end(home: Path) -> None:
    file = made(home, "diamond.json", DIAMOND)
    id = run("workflow", "submit", file, home=home).stdout.strip()
    assert run("watch", id, home=home).returncode == 0


def test_history_goes_by_state_and_executor(home: Path) -> None:
    id = run("call", "echo", "1", "--name", "http-agent", home=home)
    assert id.returncode == 0
    ours = json.loads(
        run(
            "history", "--executor", "http-agent", "--state", "success", "-o", "json", home=home
        ).stdout
    )
    theirs = json.loads(
        run("history", "--since", "10m", "--executor", "mqtt-agent", "-o", "json", home=home).stdout
    )
    everything = json.loads(run("history", "-o", "json", home=home).stdout)
    assert len({each["assignedexecutorid"] for each in ours}) == 1
    ids = {each["processid"] for each in ours}
    assert not ids & {each["processid"] for each in theirs}
    assert ids <= {each["processid"] for each in everything}


def test_a_colony_is_paused_and_resumed(home: Path) -> None:
    assert run("colony", "pause", home=home).returncode == 0
    try:
        assert "home is paused" in run("colony", "status", home=home).stdout
        status = json.loads(run("colony", "status", "-o", "json", home=home).stdout)
        assert status["ispaused"] is True
        assert status["statistics"]["executors"] >= 2
    finally:
        assert run("colony", "resume", home=home).returncode == 0
    assert "hands out work" in run("colony", "status", home=home).stdout
    changes = json.loads(run("colony", "history", "--count", "2", "-o", "json", home=home).stdout)
    assert [each["what"] for each in changes] == ["resumed", "paused"]
    assert run("colony", "history", "--since", "1h", home=home).stdout.count("good") >= 2


def test_a_watch_says_when_it_lost_the_server_and_goes_on(tmp_path: Path) -> None:
    """A server of its own, which is stopped and started at the same port."""
    ports = ("--broker-port", "0")
    with colonist.running("up", "--port", "0", *ports, home=tmp_path, until="In another") as up:
        found = re.search(r"server +http://127\.0\.0\.1:(\d+)", up.text)
        assert found is not None
        port = found[1]
        with colonist.running("watch", home=tmp_path, until="watching") as watching:
            assert run("call", "echo", "before", home=tmp_path).returncode == 0
            watching.until("echo(before)")
            assert up.end() == 0
            watching.until("connecting again")
            again = ("up", "--port", port, *ports)
            with colonist.running(*again, home=tmp_path, until="In another"):
                watching.until("connected again at")
                assert run("call", "echo", "after", home=tmp_path).returncode == 0
                watching.until("echo(after)")
            assert "is not shown" in watching.text
            assert watching.end() == 130


def test_keys_are_changed(home: Path, up: Running) -> None:
    """Last in this file: the agents go on with keys that this leaves alone."""
    del up
    run("user", "add", "eva", home=home)
    before = run("key", "show", "eva", home=home).stdout
    id = run("user", "rotate-key", "eva", home=home).stdout
    assert id == run("key", "show", "eva", home=home).stdout != before
    assert run("stats", "--key", "state/keys/eva.key", home=home).returncode == 0
    assert run("stats", "--key", "state/keys/eva.key.old", home=home).returncode == 4
    run("executor", "add", "spare", "--type", "t", "--approve", home=home)
    changed = run("executor", "rotate-key", "spare", home=home)
    assert changed.stdout.strip() in run("executor", "get", "spare", home=home).stdout
    for noun in ("user", "colony", "server"):
        done = run(noun, "rotate-key", home=home)
        assert (done.returncode, len(done.stdout)) == (0, 65), done.stderr
    assert run("stats", home=home).returncode == 0
    assert run("colony", "list", home=home).returncode == 0
    assert "eva" in run("user", "get", "eva", home=home).stdout
    kept = run("user", "rotate-key", home=home, COLONIES_PRVKEY="11" * 32)
    assert kept.returncode == 2
    assert "--key FILE" in kept.stderr
