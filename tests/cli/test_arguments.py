"""From what is typed to a function spec."""

import json
from pathlib import Path

import pytest

from colonist_cli import arguments
from colonist_cli.arguments import Wanted, build, read_spec, split, value
from colonist_cli.exits import CliError, Exit
from colonist_protocol.function_spec import FunctionSpec


def spec_of(wanted: Wanted, base: FunctionSpec | None = None) -> FunctionSpec:
    return build(wanted, base, colony="home", type="machine")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5", 5),
        ("-1.5", -1.5),
        ("true", True),
        ("null", None),
        ('"5"', "5"),
        ("[1, {}]", [1, {}]),
        ("cpu", "cpu"),
        ("/usr/bin/env", "/usr/bin/env"),
        ("007", "007"),
        ("NaN", "NaN"),
        ("1e999", "1e999"),
        ('{"a":1,"a":2}', '{"a":1,"a":2}'),
        ("", ""),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_a_word_is_json_or_text(text: str, expected: object) -> None:
    assert value(text) == expected


def test_words_are_arguments_by_place_then_by_name() -> None:
    assert split(["cpu", "5", "interval_s=0.5", "note=a=b"]) == (
        ["cpu", 5],
        {"interval_s": 0.5, "note": "a=b"},
    )


def test_a_word_by_place_after_a_name_is_refused() -> None:
    with pytest.raises(CliError, match="after a named one") as told:
        split(["a=1", "2"])
    assert told.value.exit is Exit.USAGE


def test_what_is_not_said_has_limits_that_bring_lost_work_back() -> None:
    spec = spec_of(Wanted(function="echo"))
    assert (spec.maxwaittime, spec.maxexectime, spec.maxretries) == (-1, 3600, 3)
    assert spec.conditions.colonyname == "home"
    assert spec.conditions.executortype == "machine"


def test_flags_win_over_the_file() -> None:
    base = FunctionSpec(funcname="echo", maxexectime=5, priority=3)
    spec = spec_of(Wanted(function="sleep", words=["1"], maxexectime=9, names=["a"]), base)
    assert (spec.funcname, spec.maxexectime, spec.priority) == ("sleep", 9, 3)
    assert spec.arguments() == [1]
    assert spec.conditions.executornames == ["a"]


def test_the_file_stands_where_no_flag_is_given() -> None:
    base = spec_of(Wanted(function="echo", words=["1", "a=2"], type="other"))
    spec = spec_of(Wanted(), base)
    assert (spec.funcname, spec.arguments(), spec.keywords()) == ("echo", [1], {"a": 2})
    assert spec.conditions.executortype == "other"


@pytest.mark.parametrize(
    ("json_args", "args", "kwargs"),
    [("[1,2]", [1, 2], {}), ('{"a":1}', [], {"a": 1})],
)
def test_args_is_an_array_or_an_object(
    json_args: str, args: list[object], kwargs: dict[str, object]
) -> None:
    spec = spec_of(Wanted(function="f", json_args=json_args))
    assert (spec.arguments(), spec.keywords()) == (args, kwargs)


@pytest.mark.parametrize(
    ("wanted", "line"),
    [
        (Wanted(), "which function"),
        (Wanted(function="f", json_args="7"), "neither a JSON array nor a JSON object"),
        (Wanted(function="f", json_args="[1"), "--args: "),
        (Wanted(function="f", json_args="[1]", words=["1"]), "both as words and as --args"),
        (Wanted(function="f", priority=99_999_999), "priority outside range"),
        (Wanted(function="f\x1b"), "control character"),
    ],
)
def test_bad_input_is_told_in_one_line(wanted: Wanted, line: str) -> None:
    with pytest.raises(CliError, match=line) as told:
        spec_of(wanted)
    assert told.value.exit is Exit.USAGE
    assert "\n" not in str(told.value)


def test_no_type_is_told() -> None:
    with pytest.raises(CliError, match="which type of executor"):
        build(Wanted(function="f"), None, colony="home", type="")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "spec FILE: "),
        ("{", "spec FILE: "),
        ("[]", "spec FILE: "),
        ('{"funcname": 3}', "spec FILE: .*Expected `str`, got `int`"),
        ('{"funcame": "echo"}', "there is no funcame"),
        ('{"funcname":"a","funcname":"b"}', "spec FILE: "),
        (json.dumps({"funcname": "x" * arguments.MAX_SPEC_BYTES}), "over 1000000 bytes"),
    ],
)
def test_a_bad_spec_is_told_in_one_line(tmp_path: Path, text: str, line: str) -> None:
    file = tmp_path / "spec.json"
    file.write_text(text)
    with pytest.raises(CliError, match=line.replace("FILE", str(file))) as told:
        read_spec(str(file))
    assert told.value.exit is Exit.USAGE


def test_an_unreadable_spec_is_told(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="No such file"):
        read_spec(str(tmp_path / "none"))
    with pytest.raises(CliError, match="Is a directory"):
        read_spec(str(tmp_path))


def test_a_spec_as_an_sdk_writes_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "spec.json"
    file.write_text(
        '{"funcname":"echo","args":[1],"kwargs":null,"conditions":{"executortype":"t"}}'
    )
    spec = spec_of(Wanted(), read_spec(str(file)))
    assert (spec.funcname, spec.arguments(), spec.conditions.executortype) == ("echo", [1], "t")
