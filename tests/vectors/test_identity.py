import pytest

from colonist_protocol import curve_libsecp, curve_pure, identity
from colonist_protocol.identity import Identity
from tests.vectors.cases import check_refused, load, text_of

VECTORS = load("identity")


@pytest.fixture(params=[curve_libsecp, curve_pure], ids=["libsecp", "pure"])
def curve(request, monkeypatch):
    monkeypatch.setattr(identity, "curve", request.param)
    return request.param


@pytest.mark.parametrize("case", VECTORS["published"])
def test_published_signatures_are_ours(curve, case):
    key = Identity.from_hex(case["private"])
    assert key.sign(case["message"].encode()) == case["signature"]
    assert identity.recover(case["message"].encode(), case["signature"]) == key.id
    assert case["id"] in (key.id, None)


def test_published_ids_are_ours(curve):
    for case in VECTORS["published_ids"]:
        assert Identity.from_hex(case["private"]).id == case["id"]


def test_generated_signatures(curve):
    assert len(VECTORS["signatures"]) == 100
    for case in VECTORS["signatures"]:
        key = Identity.from_hex(case["private"])
        message = case["message"].encode()
        assert key.id == case["id"]
        assert identity.digest(message).hex() == case["digest"]
        assert key.sign(message) == case["signature"]
        assert identity.recover(message, case["signature"]) == case["id"]


@pytest.mark.parametrize("case", VECTORS["recovered"], ids=lambda case: case["why"])
def test_rare_signatures_are_recovered(curve, case):
    assert identity.recover(case["message"].encode(), case["signature"]) == case["id"]


@pytest.mark.parametrize("case", VECTORS["bad_signatures"], ids=lambda case: case["why"])
def test_bad_signatures_are_refused(curve, case):
    check_refused(case, lambda: identity.recover(b"hello", text_of(case)))


@pytest.mark.parametrize("case", VECTORS["bad_keys"], ids=lambda case: case["why"])
def test_bad_keys_are_refused(curve, case):
    check_refused(case, lambda: Identity.from_hex(text_of(case)))
