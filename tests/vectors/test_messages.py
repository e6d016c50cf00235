import json

import pytest

from colonist_core.workflow import Part, resolve
from colonist_protocol import codec, envelope, messages
from colonist_protocol.function_spec import FunctionSpec, normal_form
from colonist_protocol.workflow import WorkflowSpec
from tests.vectors.cases import check_refused, load

VECTORS = load("messages")
BY_TYPE = {case["msgtype"]: case for case in VECTORS["messages"]}


def opened(msgtype, text):
    sealed = envelope.Envelope(msgtype, codec.to_base64(text.encode()))
    return envelope.open_message(sealed, messages.TYPED[msgtype])


def test_every_typed_message_has_vectors():
    assert set(BY_TYPE) == set(messages.TYPED)


@pytest.mark.parametrize("msgtype", sorted(BY_TYPE))
def test_good_forms_mean_what_they_should(msgtype):
    for case in BY_TYPE[msgtype]["good"]:
        assert codec.encode(opened(msgtype, case["text"])).decode() == case["means"], case["form"]


@pytest.mark.parametrize("msgtype", sorted(BY_TYPE))
def test_all_full_forms_mean_the_same(msgtype):
    good = {case["form"]: case["means"] for case in BY_TYPE[msgtype]["good"]}
    assert json.loads(good["canonical"]) == json.loads(good["unknown members"])
    assert good["minimal"] == good["null for all that is optional"]


# The payload of this one is not read.
@pytest.mark.parametrize("msgtype", sorted(set(BY_TYPE) - {"getserverinfomsg"}))
def test_bad_forms_are_refused(msgtype):
    for case in BY_TYPE[msgtype]["bad"]:
        check_refused(case, lambda case=case: opened(msgtype, case["text"]))


@pytest.mark.parametrize("case", VECTORS["specs"], ids=lambda case: case["text"][:30])
def test_specs_have_one_normal_form(case):
    spec = normal_form(codec.decode(case["text"].encode(), FunctionSpec, "spec"))
    assert codec.encode(spec).decode() == case["normal"]
    again = normal_form(codec.decode(case["normal"].encode(), FunctionSpec, "spec"))
    assert codec.encode(again).decode() == case["normal"]


@pytest.mark.parametrize("case", VECTORS["bad_specs"], ids=lambda case: case["text"][:30])
def test_bad_specs_are_refused(case):
    spec = codec.decode(case["text"].encode(), FunctionSpec, "spec")
    check_refused(case, lambda: normal_form(spec))


@pytest.mark.parametrize("case", VECTORS["bad_workflows"], ids=lambda case: case["why"])
def test_bad_workflows_are_refused(case):
    spec = codec.decode(case["text"].encode(), WorkflowSpec, "spec")

    def check():
        resolve([Part(each.nodename, each.conditions.dependencies) for each in spec.functionspecs])
        for each in spec.functionspecs:
            normal_form(each)

    check_refused(case, check)
