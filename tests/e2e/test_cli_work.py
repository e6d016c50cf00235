"""The command against a real colony: what it prints, and its exit codes."""

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support import colonist
from tests.support.colonist import Running, run

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("up")]


@pytest.mark.parametrize("agent", ["http-agent", "mqtt-agent"])
def test_call_prints_what_the_function_returns(home: Path, agent: str) -> None:
    done = run("call", "sysinfo", "--name", agent, home=home)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["host"] == os.uname().nodename


def test_call_takes_json_and_text(home: Path) -> None:
    done = run("call", "echo", "1", "två", "-0.5", home=home)
    assert done.stdout == "" or done.returncode == 0
    done = run("call", "echo", "--", "1", "två", "-0.5", home=home)
    assert done.stdout.splitlines() == ["1", "två", "-0.5"]


def test_call_of_a_real_file(home: Path) -> None:
    done = run("call", "checksum", "/usr/bin/env", home=home)
    data = Path("/usr/bin/env").read_bytes()
    assert done.stdout.splitlines() == [hashlib.sha256(data).hexdigest(), str(len(data))]


def test_a_failure_is_exit_code_1_with_the_reason(home: Path) -> None:
    done = run("call", "checksum", "/etc/passwd", home=home)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("colonist: process ")
    assert "path is not below an allowed root" in done.stderr
    assert done.stderr.count("\n") == 1


def test_submit_prints_the_id_which_other_commands_take(home: Path) -> None:
    id = run("submit", "echo", "1", "--label", "mine", home=home).stdout.strip()
    assert len(id) == 64
    shown = run("process", "get", id, home=home)
    assert "echo(1)" in shown.stdout
    listed = json.loads(run("process", "list", "--label", "mine", "-o", "json", home=home).stdout)
    assert [process["processid"] for process in listed] == [id]


def test_submit_wait_prints_the_result(home: Path) -> None:
    done = run("submit", "echo", "--args", '["a", 2]', "--wait", home=home)
    assert done.stdout.splitlines() == ["a", "2"]
    assert done.stderr.startswith("process ")


def test_submit_follow_prints_the_log_beside_the_result(home: Path) -> None:
    arguments = ("sample", "load", "duration_s=0.4", "interval_s=0.1")
    done = run("submit", *arguments, "--follow", "-o", "json", home=home)
    assert "progress 100%" in done.stderr
    process = json.loads(done.stdout)
    assert json.loads(process["out"][0])["count"] == 5
    assert "progress 100%" in run("logs", process["processid"], home=home).stdout
    assert "progress 100%" in run("logs", "-f", process["processid"], home=home).stdout


def test_submit_takes_a_spec_from_a_file_or_stdin(home: Path) -> None:
    spec = {"funcname": "echo", "args": ["from a spec"], "maxexectime": 10}
    (home / "spec.json").write_text(json.dumps(spec))
    assert run("submit", "--spec", "spec.json", "--wait", home=home).stdout == "from a spec\n"
    done = run("submit", "--spec", "-", "--wait", home=home, input=json.dumps(spec))
    assert done.stdout == "from a spec\n"


def test_waiting_in_vain_is_exit_code_6(home: Path) -> None:
    done = run("call", "echo", "--type", "nobody", "--timeout", "0.2", home=home)
    assert done.returncode == 6
    assert "has not ended within 0.2 s; it goes on" in done.stderr
    id = done.stderr.split()[2]
    assert run("process", "cancel", id, home=home).returncode == 0
    assert run("process", "cancel", id, home=home).returncode == 7
    assert run("process", "remove", id, home=home).returncode == 0
    assert run("process", "get", id, home=home).returncode == 3


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (("submit", "--spec", "none.json"), 2, "spec none.json: No such file"),
        (("submit", "--spec", "/"), 2, "spec /: Is a directory"),
        (("submit",), 2, "which function?"),
        (("submit", "f", "--args", "{"), 2, "--args: "),
        (("process", "get", "abc"), 2, "'abc' is no process id"),
        (("stats", "--key", "none.key"), 2, "key file none.key: No such file"),
        (("stats", "--server", "example.org"), 2, "the server's URL is not http"),
        (("stats", "--server", "http://127.0.0.1:1"), 5, "no connection: Connection refused"),
        (("colony", "list", "--key", "state/keys/user.key"), 4, "refused: Access denied"),
        (("executor", "add", "http-agent"), 7, "already exists"),
        (("executor", "approve", "nobody"), 3, "nobody"),
        (("logs",), 2, "say one of"),
    ],
)
def test_errors_are_one_line_with_an_exit_code(
    home: Path, arguments: tuple[str, ...], code: int, line: str
) -> None:
    done = run(*arguments, home=home)
    assert (done.returncode, done.stdout) == (code, "")
    assert line in done.stderr
    assert done.stderr.startswith("colonist: ")
    assert done.stderr.count("\n") == 1


def test_a_strangers_key_is_refused_and_named(home: Path) -> None:
    stranger = run("key", "new", "stranger", home=home).stdout.strip()
    done = run("stats", "--key", "state/keys/stranger.key", home=home)
    assert done.returncode == 5  # whom nobody knows is answered without a signature
    assert "unverified, something answered: 403" in done.stderr
    assert stranger[:12] in done.stderr
    assert "state/keys/stranger.key" in done.stderr


def test_a_key_file_that_others_can_read_is_refused(home: Path) -> None:
    run("key", "new", "./open.key", home=home)
    (home / "open.key").chmod(0o644)
    done = run("stats", "--key", "open.key", home=home)
    assert done.returncode == 2
    assert "mode 0644" in done.stderr


def test_a_key_is_shown_only_on_demand(home: Path) -> None:
    id = run("key", "new", "mine", home=home).stdout.strip()
    assert run("key", "show", "mine", home=home).stdout.strip() == id
    revealed = run("key", "show", "mine", "--reveal", home=home).stdout.strip()
    assert revealed == (home / "state/keys/mine.key").read_text().strip()
    again = run("key", "new", "mine", home=home)
    assert (again.returncode, again.stdout) == (7, "")


def test_a_refused_colony_does_not_stop_the_server(home: Path) -> None:
    assert run("colony", "add", "home", home=home).returncode == 7
    assert run("stats", home=home).returncode == 0


def test_an_executor_of_ones_own(home: Path) -> None:
    added = run("executor", "add", "mine", "--type", "own", "--approve", "-o", "json", home=home)
    assert json.loads(added.stdout)["state"] == 1
    (home / "agent.toml").write_text('[commands.hello]\nargv = ["/bin/echo", "hello"]\n')
    arguments = ("agent", "run", "--name", "mine", "--journal", "runs", "--set", "builtins=echo")
    with colonist.running(*arguments, home=home, until="agent_started") as agent:
        assert run("call", "echo", "5", "--type", "own", home=home).stdout == "5\n"
        assert agent.end() == 0
    events = [json.loads(line) for line in (home / "runs").read_text().splitlines()]
    assert [event["event"] for event in events] == ["started", "ended"]
    assert run("executor", "reject", "mine", home=home).returncode == 0
    assert run("executor", "remove", "mine", home=home).returncode == 0
    listed = json.loads(run("executor", "list", "-o", "json", home=home).stdout)
    assert {each["executorname"]: each["state"] for each in listed}["mine"] == 3


def test_users_come_and_go(home: Path) -> None:
    assert run("user", "add", "eva", "--email", "e@example.org", home=home).returncode == 0
    assert "eva" in run("user", "list", home=home).stdout
    assert run("stats", "--key", "state/keys/eva.key", home=home).returncode == 0
    assert run("user", "remove", "eva", home=home).returncode == 0
    assert run("stats", "--key", "state/keys/eva.key", home=home).returncode == 4


def test_stats_of_the_colony_and_of_the_server(home: Path) -> None:
    own = json.loads(run("stats", "-o", "json", home=home).stdout)
    everything = json.loads(run("stats", "--all", "-o", "json", home=home).stdout)
    assert own["activeexecutors"] >= 2
    assert everything["colonies"] == 1


def test_the_environment_alone_is_enough(home: Path, tmp_path: Path) -> None:
    exported = run("env", home=home).stdout
    pairs = (line.removeprefix("export ").partition("=") for line in exported.splitlines())
    variables = {name: value for name, _, value in pairs}
    assert variables["COLONIES_COLONY_NAME"] == "home"
    assert run("call", "echo", "1", home=tmp_path, **variables).stdout == "1\n"


def test_pycolonies_works_with_the_environment(home: Path) -> None:
    exported = run("env", home=home).stdout
    program = (
        "from pycolonies import colonies_client\n"
        "client, colony, _, _, key = colonies_client()\n"
        "print(client.list_executors(colony, key))\n"
    )
    pairs = (line.removeprefix("export ").partition("=") for line in exported.splitlines())
    variables = {name: value for name, _, value in pairs}
    done = subprocess.run(
        [str(colonist.BIN / "python"), "-W", "ignore", "-c", program],
        env=colonist.environment(home, **variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "http-agent" in done.stdout, done.stderr


def test_version_tells_ours_and_the_servers(home: Path) -> None:
    found = json.loads(run("version", "-o", "json", home=home).stdout)
    assert found["server"].startswith(found["colonist"])
    away = json.loads(
        run("version", "-o", "json", "--server", "http://127.0.0.1:1", home=home).stdout
    )
    assert away["server"].startswith("unknown: ")


def test_ctrl_c_while_waiting_is_130_and_the_work_goes_on(home: Path) -> None:
    arguments = ("submit", "sleep", "30", "--follow")
    with colonist.running(*arguments, home=home, until="progress") as waiting:
        assert waiting.end() == 130
    id = waiting.lines[0].removeprefix("process ")
    assert "running" in run("process", "get", id, home=home).stdout
    assert run("process", "cancel", id, home=home).returncode == 0


def test_output_into_a_closed_pipe_is_no_error(home: Path) -> None:
    done = subprocess.run(
        ["/bin/bash", "-c", "set -o pipefail; colonist executor list | true"],
        env=colonist.environment(home),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_an_agents_settings_are_checked_and_shown(home: Path) -> None:
    shown = run("agent", "run", "--name", "http-agent", "--check", home=home)
    assert "colony = 'home'" in shown.stdout
    bad = run("agent", "run", "--set", "slotz=1", home=home)
    assert (bad.returncode, bad.stderr) == (2, "colonist: no such setting: slotz\n")


def test_broker_rules_are_written(home: Path) -> None:
    assert "user gw-edge" in run("bridge", "acl", "--bridge", "edge", home=home).stdout
    made = run("bridge", "acl", "--bridge", "edge", "--dynamic", home=home).stdout
    assert json.loads(made)["clients"]


def test_up_says_which_port_is_taken(home: Path, tmp_path: Path, up: Running) -> None:
    del up
    server = json.loads(run("version", "-o", "json", home=home).stdout)["server"]
    port = server.rpartition(":")[2]
    for command in (("up", "--port", port), ("server", "--port", port)):
        done = run(*command, home=tmp_path)
        assert done.returncode == 9
        assert f"port {port} is taken: stop what uses it, or choose another" in done.stderr


def test_a_second_up_on_the_same_folder_is_told(home: Path) -> None:
    done = run("up", "--port", "0", "--broker-port", "0", home=home)
    assert done.returncode == 9
    assert "another server has this store open" in done.stderr
