import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colonist_protocol import codec, envelope, function, messages, process
from colonist_protocol.errors import ColonistError, InvalidValueError, NameFormError, WrongTypeError
from colonist_protocol.function_spec import Conditions, FunctionSpec, Gpu, normal_form
from colonist_protocol.message import registry
from scripts.vectors.messages import FULL
from tests.core.protocol.mutations import mutated


@pytest.mark.parametrize("msgtype", sorted(FULL))
@given(st.data())
def test_bytes_off_the_wire_cause_no_other_errors(msgtype, data):
    whole = {"msgtype": msgtype, **FULL[msgtype]}
    nulls = dict.fromkeys(FULL[msgtype]) | {"msgtype": msgtype}
    sources = [json.dumps(whole).encode(), codec.encode(whole), codec.encode(nulls)]
    payload = data.draw(mutated(st.sampled_from(sources)))
    request = envelope.Envelope(msgtype, codec.to_base64(payload))
    kind = messages.TYPED[msgtype]
    try:
        message = envelope.open_message(request, kind)
        if isinstance(message, process.SubmitFunctionSpec):
            normal_form(message.spec)
    except ColonistError as error:
        message = None
        failure = envelope.parse_reply(envelope.pack_failure(error))
    if message is None:
        assert 400 <= failure.status < 500
    else:
        again = codec.decode(codec.encode(message), kind, "")
        assert codec.encode(again) == codec.encode(message)


def test_known_types_are_typed_or_not_supported_never_both():
    assert not set(messages.TYPED) & messages.UNSUPPORTED
    assert set(messages.TYPED) >= messages.UNSIGNED
    assert len(messages.TYPED) == 80
    assert len(messages.UNSUPPORTED) == 31


def test_a_type_cannot_stand_twice():
    with pytest.raises(ValueError, match="getfunctionsmsg stands twice"):
        registry(function.MESSAGES, (function.GetFunctions,))


@pytest.mark.parametrize("kind", [process.CloseSuccessful, process.SetOutput])
def test_out_is_an_array_and_null_is_none(kind):
    assert bytes(kind(out=msgspec.Raw(b"null")).out) == b"[]"
    assert bytes(kind(out=msgspec.Raw(b"[1.0]")).out) == b"[1.0]"
    with pytest.raises(WrongTypeError, match="out is not an array"):
        kind(out=msgspec.Raw(b"{}"))


def test_messages_do_not_share_their_lists():
    process.CloseFailed().errors.append("x")
    assert process.CloseFailed().errors == []


def spec_of(**members):
    return FunctionSpec(**members)


def test_the_normal_form_of_nothing_is_whole():
    spec = json.loads(codec.encode(normal_form(FunctionSpec())))
    assert spec["fs"] == {"mount": "", "snapshots": None, "dirs": None}
    assert (spec["args"], spec["kwargs"], spec["env"]) == ([], {}, {})
    assert spec["conditions"]["cpu"] == "0m"
    assert spec["conditions"]["mem"] == "0Mi"
    assert spec["conditions"]["gpu"] == {"name": "", "mem": "", "count": 0, "nodecount": 0}
    assert "channels" not in spec
    assert "locationname" not in spec["conditions"]


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        (b"null", {"mount": "", "snapshots": None, "dirs": None}),
        (b"{}", {"mount": "", "snapshots": None, "dirs": None}),
        (b'{"mount":null,"x":1}', {"mount": "", "snapshots": None, "dirs": None, "x": 1}),
        (b'{"dirs":[{"label":"/l"}]}', {"mount": "", "snapshots": None, "dirs": [{"label": "/l"}]}),
        (b'{"dirs":[],"mount":"/","snapshots":[]}', {"mount": "/", "snapshots": [], "dirs": []}),
    ],
)
def test_a_filesystem_has_the_members_that_pycolonies_wants(sent, shown):
    spec = normal_form(spec_of(fs=msgspec.Raw(sent)))
    assert json.loads(bytes(spec.fs)) == shown


def test_a_whole_filesystem_keeps_its_text():
    for text in (
        b'{"mount":"/m", "snapshots": [ ], "dirs": null}',
        b'{"dirs":[],"mount":"","snapshots": []}',
    ):
        assert bytes(normal_form(spec_of(fs=msgspec.Raw(text))).fs) == text


@pytest.mark.parametrize(
    "members",
    [
        {"priority": 50_001},
        {"priority": -50_001},
        {"env": {str(number): "" for number in range(101)}},
        {"conditions": Conditions(executornames=["e"] * 33)},
    ],
)
def test_limits_of_a_spec(members):
    with pytest.raises(InvalidValueError):
        normal_form(spec_of(**members))


def test_the_limits_themselves_pass():
    normal_form(spec_of(priority=50_000, env={str(number): "" for number in range(100)}))
    normal_form(spec_of(priority=-50_000, conditions=Conditions(executornames=["e" * 1024] * 32)))
    normal_form(spec_of(label="l" * 1024, funcname="f" * 1024))


@pytest.mark.parametrize(
    "members",
    [
        {"label": "a\nb"},
        {"nodename": "n" * 1025},
        {"conditions": Conditions(locationname="a\x00")},
        {"conditions": Conditions(executornames=["good", "\u202ebad"])},
    ],
)
def test_texts_of_a_spec(members):
    with pytest.raises(NameFormError):
        normal_form(spec_of(**members))


def test_amounts_of_a_spec_take_their_normal_form():
    given = Conditions(cpu="2", mem="1Gi", storage="500M", gpu=Gpu(mem="2GiB"), locationname="")
    shown = normal_form(spec_of(conditions=given, channels=[])).conditions
    assert (shown.cpu, shown.mem, shown.storage, shown.gpu.mem) == (
        "2000m",
        "1024Mi",
        "476Mi",
        "2048Mi",
    )
    assert shown.locationname is msgspec.UNSET


def test_arguments_are_read_and_null_is_none():
    spec = spec_of(args=msgspec.Raw(b'["a",null]'), kwargs=msgspec.Raw(b'{"k":null}'))
    assert spec.arguments() == ["a", None]
    assert spec.keywords() == {"k": None}
    empty = spec_of(args=msgspec.Raw(b"null"), kwargs=msgspec.Raw(b"null"))
    assert empty.arguments() == []
    assert empty.keywords() == {}


def test_a_process_knows_whether_it_has_ended():
    whole = process.Process(
        processid="p",
        initiatorid="",
        initiatorname="",
        assignedexecutorid="",
        isassigned=False,
        state=process.State.RUNNING,
        prioritytime=0,
        submissiontime="",
        spec=FunctionSpec(),
        inputs=msgspec.Raw(b"[2]"),
        out=msgspec.Raw(b"[1]"),
    )
    assert not whole.is_final
    assert whole.output() == [1]
    assert whole.input() == [2]
    assert msgspec.structs.replace(whole, inputs=msgspec.Raw(b"null")).input() == []
    for state in process.FINAL:
        assert msgspec.structs.replace(whole, state=state).is_final


@pytest.mark.parametrize(
    ("msgtype", "level"),
    [
        ("submitworkflowspecmsg", "CORE"),
        ("getclustermsg", "EXT"),
        ("addblueprintmsg", "EXT"),
        ("releaseprocessmsg", "ours"),
    ],
)
def test_level_of_a_message(msgtype, level):
    assert messages.level(msgtype) == level
