"""The quick readers of seals and envelopes against the strict ones, for any input."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from colonist_protocol import codec, envelope, seal
from colonist_protocol.envelope import Envelope
from colonist_protocol.errors import ColonistError
from colonist_protocol.identity import Identity
from colonist_protocol.process import AssignProcess
from colonist_protocol.seal import AttemptSeal, EpochSeal, read_request_seal
from colonist_protocol.tokens import ServerKey, last_minute, read_attempt, read_epoch
from tests.core.protocol.mutations import mutated

KEY = Identity.from_entropy(bytes(32))
SERVER = ServerKey(Identity.from_entropy(b"\1" * 32))
EPOCH = SERVER.epoch_token(29_399_999, "0a" * 4)
ATTEMPT = SERVER.attempt_token("ab" * 32, KEY.id, 1, "0b" * 8)
SEALS = [
    codec.encode(each)
    for each in (
        EpochSeal(1, SERVER.id, EPOCH, "0c" * 16, 600),
        EpochSeal(1, SERVER.id, "", "0c" * 16, 1),
        AttemptSeal(1, SERVER.id, ATTEMPT, 0),
        AttemptSeal(1, SERVER.id, ATTEMPT, 2**32 - 1),
    )
]
KINDS = ["getcolonymsg", "addlogmsg"]
NEVER = re.compile(rb"(?!)")
SEALED = envelope.pack_sealed_request(
    AssignProcess(colonyname="c", timeout=10), KEY, EpochSeal(1, SERVER.id, EPOCH, "0c" * 16, 600)
)
BODIES = [
    SEALED,
    envelope.with_index(SEALED, 3),
    envelope.with_index(SEALED, 0),
    json.dumps(json.loads(SEALED), indent=1).encode(),
    b'{"payloadtype":"a","payload":"b","signature":"c","seal":"d","index":-1}',
]


def outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except ColonistError as error:
        return error.code


def strictly(text: str, kind: str) -> Any:
    """As `read_request_seal` reads it without its quick forms."""
    quick = seal._EPOCH_FORM, seal._ATTEMPT_FORM
    seal._EPOCH_FORM = seal._ATTEMPT_FORM = NEVER  # type: ignore[misc] # for this test only
    try:
        return outcome(lambda: read_request_seal(text, kind))
    finally:
        seal._EPOCH_FORM, seal._ATTEMPT_FORM = quick  # type: ignore[misc] # as it was


@given(mutated(st.sampled_from(SEALS)), st.sampled_from(KINDS))
@example(SEALS[0].replace(b'"ttl":600', b'"ttl":604800'), KINDS[0])
@example(SEALS[0].replace(b'"ttl":600', b'"ttl":604801'), KINDS[0])
@example(SEALS[0].replace(b'"ttl":600', b'"ttl":0'), KINDS[0])
@example(SEALS[0].replace(b'"epoch":"2', b'"epoch":"02'), KINDS[0])
@example(SEALS[2].replace(b'"seq":0', b'"seq":4294967296'), KINDS[1])
@example(SEALS[2].replace(b'"seq":0', b'"seq":00'), KINDS[1])
@example(SEALS[2].replace(b'"attempt":"1', b'"attempt":"9999999999'), KINDS[1])
def test_the_quick_reader_of_seals_reads_as_the_strict_one(data: bytes, kind: str) -> None:
    text = codec.to_base64(data)
    assert outcome(lambda: read_request_seal(text, kind)) == strictly(text, kind)


@given(st.text(), st.sampled_from(KINDS))
def test_no_text_at_all_raises_anything_else(text: str, kind: str) -> None:
    assert outcome(lambda: read_request_seal(text, kind)) == "seal_invalid"
    assert outcome(lambda: seal.read_reply_seal(text)) == "seal_invalid"


@given(mutated(st.sampled_from(BODIES)))
@example(b'{"payloadtype":"a","payload":"b","signature":"c","payload":"d"}')
@example(b'{"payloadtype":"a","payload":"b","signature":"c","seal":"d","seal":"e"}')
@example(b'{"payloadtype":"a","payload":"b","signature":"c","seal":"d","index":1,"x":2}')
@example(b'{"payloadtype":"a","payload":"b","signature":"c","seal":"","index":1,"x":"y"}')
@example(b'{"payloadtype":"a","payload":"b","signature":"c","index":1.0,"index":2}')
def test_the_quick_reader_of_envelopes_reads_as_the_strict_one(body: bytes) -> None:
    quick = envelope._parse_plain(body)
    if quick is not None:
        assert quick == outcome(lambda: codec.decode(body, Envelope, "envelope"))


@given(st.integers(0, 2**32 - 1), st.binary(min_size=4, max_size=4))
def test_every_epoch_token_is_read_back(n: int, era: bytes) -> None:
    token = read_epoch(SERVER.epoch_token(n, era.hex()))
    assert token is not None
    assert (token.n, token.era) == (n, era.hex())
    assert SERVER.made_epoch(token)
    assert not SERVER.made_epoch(token._replace(n=n ^ 1))


@given(st.integers(0, 2**31), st.integers(1, 604_800))
def test_a_request_lives_for_its_ttl_in_whole_minutes(n: int, ttl_s: int) -> None:
    token = read_epoch(SERVER.epoch_token(n, "00" * 4))
    assert token is not None
    minutes = last_minute(token, ttl_s) - n
    assert (minutes - 1) * 60 < ttl_s <= minutes * 60


@given(st.integers(1, 2**32 - 1), st.binary(min_size=8, max_size=8))
def test_every_attempt_token_is_read_back(number: int, nonce: bytes) -> None:
    token = read_attempt(SERVER.attempt_token("ab" * 32, KEY.id, number, nonce.hex()))
    assert token is not None
    assert (token.number, token.nonce) == (number, nonce.hex())
    assert SERVER.made_attempt(token, "ab" * 32, KEY.id)
    assert not SERVER.made_attempt(token._replace(number=number ^ 1), "ab" * 32, KEY.id)
