"""Cards, codes and proofs, whatever they are made of."""

from __future__ import annotations

import base64

from hypothesis import example, given
from hypothesis import strategies as st

from colonist_protocol import claims
from colonist_protocol.claims import Card
from colonist_protocol.errors import ColonistError
from colonist_protocol.identity import Identity
from colonist_protocol.topics import Topics

SERVER, DEVICE = (Identity.from_entropy(bytes([number]) * 32).id for number in range(2))
CODE = claims.make_code(bytes(range(16)))
GOOD = claims.pack_card(Card("colony.example:1", SERVER, "home", CODE))
ANYTHING = st.text(max_size=40)


def read(text: str) -> Card | None:
    try:
        return claims.read_card(text)
    except ColonistError as error:
        assert CODE not in str(error)
        return None


@given(st.binary(min_size=16, max_size=16))
def test_every_16_bytes_are_a_code_of_26_characters_and_each_another(entropy: bytes) -> None:
    code = claims.check_code(claims.make_code(entropy))
    assert len(code) == claims.CODE_CHARS
    assert base64.b32decode(code + "======") == entropy


@given(ANYTHING, ANYTHING, ANYTHING, ANYTHING)
@example("h", SERVER, "home", CODE)
def test_a_card_that_can_be_made_is_read_as_it_was_made(
    host: str, server: str, colony: str, code: str
) -> None:
    for card in (Card(host, SERVER, colony, CODE), Card(host, server, colony, code)):
        try:
            text = claims.pack_card(card)
        except ColonistError:
            continue
        assert read(text) == card


@given(st.integers(0, len(GOOD)), st.integers(0, 3), st.text(max_size=3))
def test_a_card_has_one_spelling(at: int, gone: int, put: str) -> None:
    text = GOOD[:at] + put + GOOD[at + gone :]
    card = read(text)
    assert card is None or claims.pack_card(card) == text


@given(st.text(max_size=600))
def test_any_text_is_a_card_or_refused(text: str) -> None:
    card = read(text)
    assert card is None or claims.pack_card(card) == text


@given(st.text(alphabet="0123456789abcdefABCDEFg", max_size=140))
def test_no_other_text_is_a_proof(proof: str) -> None:
    claim = claims.claim_key(CODE).id
    assert not claims.is_proof(proof, server=SERVER, colony="home", claim=claim, executor=DEVICE)


def test_devices_without_an_account_share_a_topic_that_is_no_devices() -> None:
    topics = Topics("a/b")
    assert topics.enrolment("req") == "a/b/enrol/req"
    assert topics.parse_device(topics.enrolment("req")) is None
