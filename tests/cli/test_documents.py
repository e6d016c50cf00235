"""Workflows and generators in files; lengths of time."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colonist_cli import documents, durations
from colonist_cli.documents import Around
from colonist_cli.exits import CliError, Exit

HOME = Around(colony="home", type="machine")
NODE = {"nodename": "a", "funcname": "f"}


def packed(value: Any) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize("made", [[NODE], {"functionspecs": [NODE]}])
def test_what_the_file_leaves_out_comes_from_the_settings(made: Any) -> None:
    spec = documents.workflow("w", packed(made), HOME)
    assert spec.colonyname == "home"
    assert spec.functionspecs[0].conditions.colonyname == "home"
    assert spec.functionspecs[0].conditions.executortype == "machine"


def test_what_the_file_says_stays() -> None:
    node = {**NODE, "conditions": {"executortype": "mine", "dependencies": ["b"]}}
    made = packed({"colonyname": "lab", "functionspecs": [node, {**NODE, "nodename": "b"}]})
    spec = documents.workflow("w", made, HOME)
    assert documents.colony_in("w", made) == spec.colonyname == "lab"
    first, second = (each.conditions for each in spec.functionspecs)
    assert (first.executortype, first.dependencies) == ("mine", ["b"])
    assert (second.executortype, second.colonyname) == ("machine", "lab")


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", "w: "),
        (b"{", "w: "),
        (b"[1]", "w: "),
        (b"[]", "w: a workflow without function specs"),
        (b"{}", "w: a workflow without function specs"),
        (b'{"functionspec": []}', "w: there is no functionspec"),
        (b'[{"nodename": "a", "function": "f"}]', "w: there is no function"),
        (b'{"functionspecs": [{"name": "a"}]}', "w: there is no name"),
        (b'{"functionspecs": null}', "w: "),
        (b"\xff\xfe", "w: "),
    ],
)
def test_a_bad_workflow_is_one_line(data: bytes, line: str) -> None:
    with pytest.raises(CliError) as told:
        documents.workflow("w", data, HOME)
    assert told.value.exit is Exit.USAGE
    assert str(told.value).startswith(line)
    assert "\n" not in str(told.value)


def test_a_type_is_needed_and_a_colony_is_not_overruled() -> None:
    with pytest.raises(CliError, match="for which type of executor is 'a'"):
        documents.workflow("w", packed([NODE]), Around(colony="home", type=""))
    made = packed({"colonyname": "lab", "functionspecs": [NODE]})
    with pytest.raises(CliError, match="for the colony 'lab'"):
        documents.workflow("w", made, Around(colony="home", type="t", flag="home"))


@pytest.mark.parametrize("spec", [[NODE], json.dumps([NODE])])
def test_a_generator_may_hold_its_workflow_as_json_or_as_text(spec: Any) -> None:
    given = {"name": "g", "trigger": 3, "timeout": 5, "workflowspec": spec}
    found = documents.generator("g", packed(given))
    assert (found.name, found.trigger, found.timeout) == ("g", 3, 5)
    made = documents.workflow("g", bytes(found.workflowspec), HOME)
    assert made.functionspecs[0].nodename == "a"


def test_a_generator_with_a_misspelt_member_is_refused() -> None:
    with pytest.raises(CliError, match="there is no triger"):
        documents.generator("g", packed({"triger": 3}))


def test_a_file_that_is_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "MAX_BYTES", 10)
    path = tmp_path / "w.json"
    path.write_bytes(b" " * 11)
    with pytest.raises(CliError, match="over 10 bytes"):
        documents.read(str(path))


@given(st.integers(1, 10**9))
def test_a_length_of_time_is_read_as_it_is_shown(seconds: int) -> None:
    assert durations.seconds_of(durations.shown(seconds), "t") == seconds


@pytest.mark.parametrize(
    ("text", "seconds"), [("10", 10), ("10s", 10), ("1h30m", 5400), ("2d", 172_800), (" 5m ", 300)]
)
def test_lengths_of_time(text: str, seconds: int) -> None:
    assert durations.seconds_of(text, "t") == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "-5s", "5x", "5m1h", "1.5h", "1" * 30])
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(CliError, match="is no length of time"):
        durations.seconds_of(text, "--since")
