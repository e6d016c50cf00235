import json
import math

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from colonist_protocol import codec
from colonist_protocol.attribute import Attribute
from colonist_protocol.errors import (
    ColonistError,
    DuplicateMemberError,
    LoneSurrogateError,
    MissingMemberError,
    NotJsonError,
    NumberError,
    OutOfBoundsError,
    TooDeepError,
    WrongTypeError,
)
from colonist_protocol.executor import Allocations, Capabilities, Executor
from colonist_protocol.function import AddFunction
from colonist_protocol.function_spec import FunctionSpec
from colonist_protocol.process import GetProcess, Process
from tests.core.protocol.mutations import mutated, values


class StrictReader:
    """The rules of strict JSON once more, slow and plain."""

    def read(self, data):
        tree = json.loads(
            data.decode(),
            object_pairs_hook=self.object,
            parse_float=self.float,
            parse_int=self.int,
            parse_constant=self.constant,
        )
        json.dumps(tree, ensure_ascii=False).encode()
        self.depth(tree, 0)
        return tree

    def object(self, pairs):
        assert len({name for name, _ in pairs}) == len(pairs)
        return dict(pairs)

    def float(self, text):
        assert not math.isinf(float(text))
        return float(text)

    def int(self, text):
        assert len(text) <= 4300
        return int(text)

    def constant(self, text):
        raise AssertionError(text)

    def depth(self, tree, level):
        if isinstance(tree, (dict, list)):
            assert level < 32
            for child in tree.values() if isinstance(tree, dict) else tree:
                self.depth(child, level + 1)


written = st.builds(
    lambda value, ascii_only, spaced: json.dumps(
        value, ensure_ascii=ascii_only, indent=1 if spaced else None
    ).encode(),
    values,
    st.booleans(),
    st.booleans(),
)


@given(mutated(written))
@example(b'{"a":1,"a":"\\u003A"}')
@example(b'{"a":":","a":":"}')
@example(b'{"\\u003a":1,":":1}')
@example(b'["\\ud83d\\ud83d\\udc1d"]')
@example(b"1" * 4301)
@example(b'"\xf0\x9f\x90\x9d\\n"')
def test_scan_agrees_with_the_plain_rules(data):
    try:
        expected = StrictReader().read(data)
    except (AssertionError, ValueError, RecursionError):
        with pytest.raises(ColonistError):
            codec.scan(data)
    else:
        assert codec.scan(data) == expected


@given(values)
def test_what_is_written_is_read_again(value):
    assert codec.scan(codec.encode(value)) == value


@given(st.binary(max_size=200))
def test_base64_round_trip(data):
    assert codec.from_base64(codec.to_base64(data)) == data


@given(st.text(max_size=12) | st.text("ABab+/=\n", max_size=9))
def test_only_canonical_base64_is_read(text):
    try:
        data = codec.from_base64(text)
    except ColonistError:
        return
    assert codec.to_base64(data) == text


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (b"{", NotJsonError, "invalid JSON"),
        (b'{"a":1,"a":1}', DuplicateMemberError, "'a' stands twice"),
        (b"[" * 100_000, TooDeepError, "deeper than 32"),
        (b"[" * 700 + b"]" * 700, TooDeepError, "deeper than 32"),
        (b'"\\ud800"', LoneSurrogateError, "lone surrogate"),
        (b"NaN", NumberError, "NaN"),
        (b"null", WrongTypeError, "Failed to parse m, invalid JSON: Expected `object`, got `null`"),
        (b"{}", MissingMemberError, "Failed to parse m, targetid is nil"),
        (b'{"targetid":null}', MissingMemberError, "Failed to parse m, targetid is nil"),
        (b'{"targetid":1}', WrongTypeError, "Failed to parse m, invalid JSON"),
        (b'{"targetid":1,"key":null}', WrongTypeError, "Failed to parse m, invalid JSON"),
        (b'{"state":9223372036854775808}', OutOfBoundsError, "Failed to parse m, invalid JSON"),
        (b'{"state":-9223372036854775809}', OutOfBoundsError, "Failed to parse m, invalid JSON"),
    ],
)
def test_refusals_say_what_and_why(data, error, words):
    with pytest.raises(error, match=words):
        codec.decode(data, Attribute, "m")


def test_an_integer_beyond_a_double_is_out_of_bounds_for_a_number():
    data = b'{"msgtype":"addfunctionmsg","fun":{"executorname":"","colonyname":"","funcname":"",'
    with pytest.raises(OutOfBoundsError):
        codec.decode(data + b'"avgwaittime":%b}}' % (b"1" * 400), AddFunction, "m")


def test_the_reader_of_refusals_lets_nothing_pass_that_is_too_deep(monkeypatch):
    # A reader with a smaller stack than ours refuses what the scanner can still read.
    class Shallow:
        def decode(self, data):
            raise RecursionError

    monkeypatch.setattr(codec, "_READER", Shallow())
    with pytest.raises(TooDeepError):
        codec.scan(b"[" * 40 + b"]" * 40)


def test_null_is_missing_at_every_depth_and_in_unknown_members():
    text = """{"executorid": "i", "executortype": "t", "executorname": "n", "colonyname": "c",
      "state": null, "locationname": null, "blueprintgen": null, "future": null,
      "commissiontime": null,
      "capabilities": {"hardware": [{"model": null, "gpu": null, "network": null}],
        "software": null, "other": [null]},
      "allocations": {"projects": {"p": {"usedcpu": null, "usedgpu": 3}, "q": null}}}"""
    executor = codec.decode(text.encode(), Executor, "executor")
    plain = codec.decode(
        b"""{"executorid": "i", "executortype": "t", "executorname": "n", "colonyname": "c",
      "capabilities": {"hardware": [{}]}, "allocations": {"projects": {"p": {"usedgpu": 3}}}}""",
        Executor,
        "executor",
    )
    assert executor == plain


def test_null_is_missing_for_whole_objects():
    text = b'{"executorid":"","executortype":"","executorname":"","colonyname":"","state":null,'
    text += b'"capabilities":null,"allocations":null}'
    executor = codec.decode(text, Executor, "executor")
    assert executor.capabilities == Capabilities()
    assert executor.allocations == Allocations()


def test_carried_values_keep_their_very_text():
    args = b'[1.10, null, 1e2, "\\u00e5\\/", {"a" : null}, 123456789012345678901234567890]'
    text = b'{"label": null, "conditions": null, "env": {"a": null, "b": "c"}, "args": %b}' % args
    spec = codec.decode(text, FunctionSpec, "spec")
    assert bytes(spec.args) == args
    assert spec.env == {"b": "c"}
    assert spec.label == ""


def test_lists_of_objects_lose_their_nulls():
    process = {
        **dict.fromkeys(("processid", "initiatorid", "initiatorname", "assignedexecutorid"), ""),
        "isassigned": False,
        "state": 0,
        "prioritytime": 0,
        "submissiontime": "",
        "spec": {},
    }
    nulls = dict.fromkeys(("attributes", "parents", "children", "errors", "in", "out"))
    text = codec.encode([process, {**process, **nulls}, {**process, "attributes": []}])
    first, second, third = codec.decode(text, list[Process], "processes")
    assert first == third
    assert (second.attributes, second.parents, second.children, second.errors) == ([], [], [], [])
    assert second.output() == []


@pytest.mark.parametrize(
    "text",
    [b'{"hardware":{"a":null}}', b'{"hardware":[null]}', b'{"hardware":[1,null]}', b"[null]"],
)
def test_null_does_not_hide_a_wrong_type(text):
    with pytest.raises(WrongTypeError):
        codec.decode(text, Capabilities, "capabilities")


@pytest.mark.parametrize("text", [b'{"projects":[null]}', b'{"projects":{"p":[null]}}'])
def test_null_does_not_hide_a_wrong_type_in_a_map(text):
    with pytest.raises(WrongTypeError):
        codec.decode(text, Allocations, "allocations")


def test_null_does_not_hide_another_type_of_message():
    with pytest.raises(WrongTypeError, match="msgtype"):
        codec.decode(b'{"msgtype":"removeprocessmsg","processid":null}', GetProcess, "m")


def test_null_in_a_plain_list_is_a_wrong_type():
    with pytest.raises(WrongTypeError):
        codec.decode(b"[null]", list[str], "names")


def test_members_keep_their_text():
    found = codec.members(b'{"a" : [1.0] , "b": null}')
    assert {name: bytes(raw) for name, raw in found.items()} == {"a": b"[1.0]", "b": b"null"}
    assert codec.encode(found) == b'{"a":[1.0],"b":null}'
    assert isinstance(found["a"], msgspec.Raw)
