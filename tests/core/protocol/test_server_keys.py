"""The keys of a cluster of servers: what is good under which, and whose word leads to the next."""

from __future__ import annotations

import hashlib

from colonist_protocol import digests
from colonist_protocol.identity import Identity, recover
from colonist_protocol.tokens import ServerKeys, read_attempt, read_epoch

OLD, NOW, COMING, FOREIGN = (Identity.from_entropy(bytes([number]) * 32) for number in range(4))
KEYS = ServerKeys(NOW, [OLD], coming=COMING)
PROCESS, EXECUTOR = "ab" * 32, "cd" * 32


def test_replies_are_signed_by_the_key_of_now_or_by_the_coming_one_for_those_who_know_it() -> None:
    for to in (OLD.id, NOW.id, FOREIGN.id, ""):
        assert KEYS.signing(to) is KEYS.current
    assert KEYS.signing(COMING.id) is KEYS.coming
    assert ServerKeys(NOW).signing(COMING.id).id == NOW.id


def test_tokens_of_all_its_keys_are_good_and_of_no_other() -> None:
    for identity in (OLD, NOW, COMING, FOREIGN):
        key = ServerKeys(identity).current
        epoch = read_epoch(key.epoch_token(7, "0a" * 4))
        attempt = read_attempt(key.attempt_token(PROCESS, EXECUTOR, 1, "0b" * 8))
        assert epoch is not None
        assert attempt is not None
        is_own = identity is not FOREIGN
        assert KEYS.made_epoch(epoch) is is_own
        assert KEYS.made_attempt(attempt, PROCESS, EXECUTOR) is is_own
        assert not KEYS.made_attempt(attempt, PROCESS, PROCESS)
        assert (identity.id in KEYS.ids) is is_own


def test_each_former_key_gives_its_word_for_the_next_one_and_the_coming_one_is_not_vouched_for():
    (first,) = KEYS.via
    assert first[0] == OLD.id
    assert recover(digests.tagged_text(digests.KEY, OLD.id, NOW.id), first[1]) == OLD.id


def test_what_is_shown_holds_no_secret() -> None:
    shown = f"{KEYS!r} {KEYS.current!r} {KEYS.coming!r}"
    for identity in (OLD, NOW, COMING):
        secret = hashlib.sha3_256(identity.reveal().encode()).hexdigest()
        assert identity.reveal() not in shown
        assert secret not in shown
    assert NOW.id in shown
