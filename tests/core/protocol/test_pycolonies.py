"""The models of the published pycolonies package against our messages and replies."""

import json

import model
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colonist_protocol import codec, envelope
from colonist_protocol.attribute import Attribute
from colonist_protocol.errors import WrongTypeError
from colonist_protocol.function_spec import FunctionSpec, normal_form
from colonist_protocol.process import Process, State, SubmitFunctionSpec
from colonist_protocol.times import UNSET


def process_with(spec, **members):
    known = {
        "processid": "ab" * 32,
        "initiatorid": "cd" * 32,
        "initiatorname": "user",
        "assignedexecutorid": "",
        "isassigned": False,
        "state": State.WAITING,
        "prioritytime": 1_795_246_274_278_554_097,
        "submissiontime": "2026-11-22T07:31:14.278554Z",
        "spec": spec,
    }
    return Process(**{**known, **members})


def read_by_pycolonies(process):
    return model.Process(**json.loads(codec.encode(process)))


def submitted(spec_text):
    payload = b'{"msgtype": "submitfuncspecmsg", "spec": %b}' % spec_text
    request = envelope.Envelope("submitfuncspecmsg", codec.to_base64(payload))
    return normal_form(envelope.open_message(request, SubmitFunctionSpec).spec)


MINIMAL = [
    b"{}",
    b'{"funcname":"f","conditions":{"colonyname":"c","executortype":"t"}}',
    b'{"conditions":null,"kwargs":null,"fs":null,"env":null,"args":null,"channels":null}',
    b'{"conditions":{"gpu":null,"executornames":null,"dependencies":null,"cpu":null,"mem":null}}',
    b'{"fs":{}}',
    b'{"fs":{"mount":null}}',
    b'{"nodename":null,"funcname":null,"label":null,"priority":null,"maxretries":null}',
]


@pytest.mark.parametrize("text", MINIMAL)
def test_the_reply_to_any_spec_is_read_by_pycolonies(text):
    read = read_by_pycolonies(process_with(submitted(text)))
    assert read.starttime.year == read.waitdeadline.year == 1
    assert (read.parents, read.children, read.errors, read.attributes) == ([], [], [], [])
    assert read.input == read.output == []
    assert read.spec.fs is not None
    assert read.spec.kwargs == {}
    assert read.spec.conditions.dependencies == []


def test_a_full_reply_is_read_by_pycolonies():
    attribute = Attribute(targetid="ab" * 32, attributetype=1, key="k", value="v")
    process = process_with(
        submitted(b'{"args":["a",1],"kwargs":{"k":"v"},"env":{"E":"1"},"channels":["chat"]}'),
        state=State.FAILED,
        isassigned=True,
        attributes=[attribute],
        parents=["p"],
        children=["c"],
        errors=["too hot"],
        inputs=msgspec.Raw(b'["a"]'),
        out=msgspec.Raw(b"[1,2.5]"),
        endtime="2026-11-22T07:31:15.000000Z",
    )
    read = read_by_pycolonies(process)
    assert read.spec.args == ["a", 1]
    assert read.output == [1, 2.5]
    assert read.attributes[0].value == "v"
    assert read.endtime.microsecond == 0
    assert read.starttime.isoformat() == UNSET.replace("Z", "+00:00")


words = st.text(st.characters(exclude_categories=["Cs", "Cc"], max_codepoint=0x1FFF), max_size=8)
numbers = st.integers(-(2**63), 2**63 - 1)
specs = st.builds(
    model.FuncSpec,
    nodename=words,
    funcname=words,
    args=st.lists(words | numbers, max_size=3),
    kwargs=st.none() | st.dictionaries(words, words | st.lists(words, max_size=2), max_size=2),
    priority=st.integers(-50_000, 50_000),
    maxwaittime=numbers,
    maxexectime=numbers,
    maxretries=numbers,
    conditions=st.builds(
        model.Conditions,
        colonyname=words,
        executornames=st.none() | st.lists(words, max_size=3),
        executortype=words,
        cpu=st.sampled_from(["", "1000m"]),
        mem=st.sampled_from(["", "1024Mi"]),
        gpu=st.none() | st.builds(model.Gpu, name=words, count=numbers),
        walltime=numbers,
    ),
    label=words,
    fs=st.none()
    | st.builds(
        model.Fs, mount=words, snapshots=st.none() | st.lists(words, max_size=2), dirs=st.none()
    ),
    env=st.dictionaries(words, words, max_size=2),
    channels=st.lists(words, max_size=2),
)


@given(specs)
def test_what_pycolonies_submits_comes_back_as_it_was(spec):
    sent = json.dumps(spec.model_dump(by_alias=True)).encode()
    read = read_by_pycolonies(process_with(submitted(sent))).spec
    assert read.args == spec.args
    assert read.kwargs == (spec.kwargs or {})
    assert read.env == spec.env
    assert read.channels == spec.channels
    assert read.fs == (spec.fs or model.Fs(mount="", snapshots=None, dirs=None))
    assert read.conditions.executornames == (spec.conditions.executornames or None)
    assert (read.nodename, read.funcname, read.label) == (spec.nodename, spec.funcname, spec.label)
    for name in ("priority", "maxwaittime", "maxexectime", "maxretries"):
        assert getattr(read, name) == getattr(spec, name)


@pytest.mark.parametrize(
    "text", [b'{"args":"a"}', b'{"kwargs":[]}', b'{"fs":[]}', b'{"fs":{"dirs":1}}']
)
def test_a_spec_that_pycolonies_could_not_read_again_is_refused(text):
    with pytest.raises(WrongTypeError):
        submitted(text)


def test_a_process_without_lists_is_read_by_us():
    whole = json.loads(codec.encode(process_with(FunctionSpec())))
    nulls = dict.fromkeys(("attributes", "parents", "children", "errors", "in", "out"))
    read = codec.decode(codec.encode({**whole, **nulls}), Process, "process")
    assert read.errors == read.parents == read.children == read.attributes == []
    assert json.loads(codec.encode(read))["errors"] == []
