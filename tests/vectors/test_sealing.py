import hashlib
import hmac
import json

import pytest

from colonist_protocol import codec, digests, envelope, messages
from colonist_protocol.identity import Identity, recover
from colonist_protocol.seal import (
    AttemptSeal,
    EpochSeal,
    pack_seal,
    read_reply_seal,
    read_request_seal,
)
from colonist_protocol.tokens import (
    ServerKey,
    ServerKeys,
    read_attempt,
    read_epoch,
    sign_successor,
)
from tests.vectors.cases import bytes_of, check_refused, load

VECTORS = load("sealing")
CALLER = Identity.from_hex(VECTORS["caller"])
SERVER = Identity.from_hex(VECTORS["server"])
KEY = ServerKey(SERVER)


def why(case):
    return case["why"]


def test_every_tag_has_digests():
    tags = {value for name, value in vars(digests).items() if name.isupper()}
    assert {case["tag"] for case in VECTORS["digests"]} == tags
    assert all(":" in tag and "\n" not in tag for tag in tags)


@pytest.mark.parametrize("case", VECTORS["digests"], ids=lambda case: case["tag"])
def test_digests_are_made_to_the_byte(case):
    assert digests.tagged_digest(case["tag"], *case["parts"]).hex() == case["digest"]
    text = digests.tagged_text(case["tag"], *case["parts"])
    assert hashlib.sha3_256(text).hexdigest() == case["digest"]


@pytest.mark.parametrize("case", VECTORS["bad_digests"], ids=why)
def test_parts_that_could_be_read_in_two_ways_are_refused(case):
    check_refused(case, lambda: digests.tagged_digest(case["tag"], *case["parts"]))
    check_refused(case, lambda: KEY.mac(case["tag"], *case["parts"]))


@pytest.mark.parametrize("case", VECTORS["macs"], ids=lambda case: case["tag"])
def test_macs_are_made_to_the_byte(case):
    assert KEY.mac(case["tag"], *case["parts"]) == case["mac"]
    text = "\n".join([case["tag"], *case["parts"]]).encode()
    secret = bytes.fromhex(VECTORS["secret"])
    assert hmac.digest(secret, text, "sha256")[:16].hex() == case["mac"]


@pytest.mark.parametrize("case", VECTORS["epochs"], ids=lambda case: str(case["n"]))
def test_epoch_tokens_are_made_to_the_byte(case):
    assert KEY.epoch_token(case["n"], case["era"]) == case["token"]
    token = read_epoch(case["token"])
    assert token is not None
    assert (token.n, token.era) == (case["n"], case["era"])
    assert ServerKeys(SERVER).made_epoch(token)


@pytest.mark.parametrize("case", VECTORS["bad_epochs"], ids=why)
def test_what_has_not_the_form_of_an_epoch_token_is_none(case):
    assert read_epoch(case["text"]) is None


@pytest.mark.parametrize("case", VECTORS["foreign_epochs"], ids=why)
def test_epoch_tokens_that_another_made_are_not_ours(case):
    token = read_epoch(case["text"])
    assert token is not None
    assert not ServerKeys(SERVER).made_epoch(token)


@pytest.mark.parametrize("case", VECTORS["attempts"], ids=lambda case: str(case["number"]))
def test_attempt_tokens_are_made_to_the_byte(case):
    grant = (case["process"], case["executor"])
    assert KEY.attempt_token(*grant, case["number"], case["nonce"]) == case["token"]
    token = read_attempt(case["token"])
    assert token is not None
    assert ServerKeys(SERVER).made_attempt(token, *grant)
    assert not ServerKeys(SERVER).made_attempt(token, *reversed(grant))
    assert not ServerKeys(CALLER).made_attempt(token, *grant)


@pytest.mark.parametrize("case", VECTORS["bad_attempts"], ids=why)
def test_what_has_not_the_form_of_an_attempt_token_is_none(case):
    assert read_attempt(case["text"]) is None


@pytest.mark.parametrize("case", VECTORS["successors"], ids=lambda case: case["id"][:8])
def test_a_key_names_its_successor_to_the_byte(case):
    old = Identity.from_hex(case["old"])
    assert sign_successor(old, case["new"]) == case["signature"]
    text = digests.tagged_text(digests.KEY, case["id"], case["new"])
    assert recover(text, case["signature"]) == case["id"] == old.id


@pytest.mark.parametrize("case", VECTORS["request_seals"], ids=why)
def test_request_seals_are_read_in_any_spelling(case):
    seal, text = read_request_seal(case["text"], case["payloadtype"])
    shown = json.loads(codec.encode(seal))
    assert shown == case["members"] == json.loads(text)
    if case["why"] == "as we write it":
        assert pack_seal(seal) == case["text"]


@pytest.mark.parametrize("case", VECTORS["bad_epoch_seals"], ids=why)
def test_seals_of_epochs_that_are_none_are_refused(case):
    check_refused(case, lambda: read_request_seal(case["text"], "getcolonymsg"))


@pytest.mark.parametrize("case", VECTORS["bad_attempt_seals"], ids=why)
def test_seals_of_attempts_that_are_none_are_refused(case):
    check_refused(case, lambda: read_request_seal(case["text"], "addlogmsg"))


@pytest.mark.parametrize("case", VECTORS["request_seals"], ids=why)
def test_a_seal_of_the_wrong_kind_is_refused(case):
    kind = "getcolonymsg" if case["payloadtype"] == "addlogmsg" else "addlogmsg"
    refused = {**case, "code": "seal_invalid"}
    check_refused(refused, lambda: read_request_seal(case["text"], kind))


@pytest.mark.parametrize("case", VECTORS["reply_seals"], ids=lambda case: case["text"][:8])
def test_reply_seals_are_packed_to_the_byte(case):
    seal = read_reply_seal(case["text"])
    assert json.loads(codec.encode(seal)) == case["members"]
    assert pack_seal(seal) == case["text"]


@pytest.mark.parametrize("case", VECTORS["bad_reply_seals"], ids=why)
def test_seals_of_replies_that_are_none_are_refused(case):
    check_refused(case, lambda: read_reply_seal(case["text"]))


@pytest.mark.parametrize("case", VECTORS["requests"], ids=lambda case: case["message"][:30])
def test_sealed_requests_are_packed_and_proved_to_the_byte(case):
    kind = messages.TYPED[json.loads(case["message"])["msgtype"]]
    message = codec.decode(case["message"].encode(), kind, "message")
    of = AttemptSeal if "attempt" in case["seal"] else EpochSeal
    seal = codec.decode(case["seal"].encode(), of, "seal")
    assert envelope.pack_sealed_request(message, CALLER, seal).decode() == case["body"]
    sent = envelope.parse_request(case["body"].encode())
    assert sent.payload == case["payload"]
    found, text = read_request_seal(sent.seal, sent.payloadtype)
    assert found == seal
    signed = envelope.authenticate(sent, text)
    assert (signed.caller, signed.digest.hex()) == (CALLER.id, case["digest"])
    assert signed.seal == text == case["seal"].encode()
    plain = envelope.Envelope(sent.payloadtype, sent.payload, sent.signature)
    assert envelope.authenticate(plain).caller != CALLER.id, "sealed, it is no plain request"


@pytest.mark.parametrize("case", VECTORS["bad_requests"], ids=why)
def test_bad_sealed_requests_are_refused(case):
    def open_it():
        sent = envelope.parse_request(bytes_of(case))
        _, text = read_request_seal(sent.seal, sent.payloadtype)
        return envelope.authenticate(sent, text)

    check_refused(case, open_it)


@pytest.mark.parametrize("case", VECTORS["replies"], ids=why)
def test_sealed_replies_are_believed(case):
    found = envelope.open_sealed_reply(
        case["body"].encode(),
        server=case["server"],
        caller=case["caller"],
        re=case["re"],
        index=case["index"],
    )
    assert found.server == SERVER.id
    assert found.seal.ok is case["ok"]
    unsigned = envelope.sealed_reply("getprocessmsg", case["reply"].encode(), found.seal)
    sent = json.loads(case["body"])
    via = tuple((old, signature) for old, signature in sent.get("via", ()))
    assert unsigned.signed(SERVER, via).decode() == case["body"]
    if case["ok"]:
        assert found.reply == case["reply"].encode()
    else:
        assert json.loads(codec.encode(found.reply)) == json.loads(case["reply"])


@pytest.mark.parametrize("case", VECTORS["bad_replies"], ids=why)
def test_replies_that_prove_nothing_are_not_believed(case):
    check_refused(
        case,
        lambda: envelope.open_sealed_reply(
            case["body"].encode(),
            server=case["server"],
            caller=case["caller"],
            re=case["re"],
            index=case["index"],
        ),
    )
