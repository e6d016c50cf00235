import hashlib

import pytest

from colonist_protocol import claims
from colonist_protocol.claims import Card
from colonist_protocol.errors import InvalidValueError, NameFormError
from tests.vectors.cases import check_refused, load, text_of

VECTORS = load("claims")


@pytest.mark.parametrize("case", VECTORS["codes"])
def test_a_code_is_a_key_and_its_id_the_claim(case):
    assert claims.make_code(bytes.fromhex(case["entropy"])) == case["code"]
    key = claims.claim_key(case["code"])
    assert key.id == case["claim"]
    # By hand: the private key is the digest of the tag and the code.
    assert (
        key.reveal()
        == hashlib.sha3_256(b"colonist:claimkey:1\n" + case["code"].encode()).hexdigest()
    )


@pytest.mark.parametrize("case", VECTORS["bad_codes"], ids=lambda case: case["why"])
def test_what_is_no_code_is_refused_and_not_repeated(case):
    check_refused(case, lambda: claims.claim_key(text_of(case)))
    with pytest.raises(InvalidValueError) as caught:
        claims.check_code(text_of(case))
    assert not case["text"] or text_of(case) not in str(caught.value)


def test_a_code_has_16_bytes():
    for size in (0, 15, 17):
        with pytest.raises(InvalidValueError):
            claims.make_code(bytes(size))


@pytest.mark.parametrize("case", VECTORS["proofs"])
def test_a_proof_is_the_claims_word_for_one_executor(case):
    named = {name: case[name] for name in ("server", "colony", "executor")}
    assert claims.prove(case["code"], **named) == case["proof"]
    assert claims.is_proof(case["proof"], claim=case["claim"], **named)


@pytest.mark.parametrize("case", VECTORS["bad_proofs"], ids=lambda case: case["why"])
def test_a_proof_changed_in_anything_proves_nothing(case):
    named = {name: case[name] for name in ("server", "colony", "claim", "executor")}
    assert not claims.is_proof(case["proof"], **named)


@pytest.mark.parametrize("case", VECTORS["cards"])
def test_cards_are_read_as_they_were_made(case):
    card = Card(case["host"], case["server"], case["colony"], case["code"])
    assert claims.pack_card(card) == case["card"]
    assert claims.read_card(case["card"]) == card
    assert case["code"] not in repr(card)


@pytest.mark.parametrize("case", VECTORS["bad_cards"], ids=lambda case: case["why"])
def test_what_is_no_card_is_refused_and_its_code_not_repeated(case):
    check_refused(case, lambda: claims.read_card(text_of(case)))
    with pytest.raises(InvalidValueError.__base__) as caught:
        claims.read_card(text_of(case))
    assert VECTORS["cards"][0]["code"][:20] not in str(caught.value)


@pytest.mark.parametrize(
    "hw", ["", "x" * 129, "a\nb", "\x00", "--version", "-", "a\u202eb", "\x9b2J"]
)
def test_hardware_has_a_name(hw):
    with pytest.raises(NameFormError):
        claims.check_hardware(hw)
    assert claims.check_hardware("esp32 24:6f") == "esp32 24:6f"


@pytest.mark.parametrize("executortype", ["", "x" * 64, "\u00e5" * 32, "a/b"])
def test_a_type_fits_into_a_name(executortype):
    with pytest.raises(NameFormError):
        claims.check_type(executortype)
    assert claims.check_type("x" * 63) == "x" * 63
