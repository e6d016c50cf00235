"""Claims: codes, the keys made from them, proofs, cards; and what none of them may be."""

from __future__ import annotations

from typing import Any

from colonist_protocol.claims import Card, claim_key, make_code, pack_card, prove
from colonist_protocol.identity import ORDER
from scripts.vectors.case import PUBLISHED, bad

SERVER, EXECUTOR = PUBLISHED[0][1], PUBLISHED[2][1]
COLONIES = ["home", "field 7", "\u00e5ngstr\u00f6m", "c" * 128]
ENTROPY = [bytes(16), b"\xff" * 16, bytes(range(16)), bytes(range(240, 256))]
CODES = [make_code(each) for each in ENTROPY]
HOSTS = ["colony.example", "colony.example:50080", "10.0.0.7:1", "[fd00::1]:50080", "[::1]"]


def vectors() -> dict[str, Any]:
    return {
        "codes": [
            {"entropy": entropy.hex(), "code": code, "claim": claim_key(code).id}
            for entropy, code in zip(ENTROPY, CODES, strict=True)
        ],
        "bad_codes": [bad(why, "invalid_value", code) for why, code in bad_codes().items()],
        "proofs": [proof(code, colony) for code in CODES for colony in COLONIES],
        "bad_proofs": bad_proofs(),
        "cards": [card(host, colony) for host in HOSTS for colony in COLONIES],
        "bad_cards": bad_cards(),
    }


def bad_codes() -> dict[str, str]:
    good = CODES[2]
    return {
        "empty": "",
        "lower case": good.lower(),
        "padded": good + "======",
        "one character less": good[:-1],
        "one character more": good + "A",
        "a digit that base32 lacks": "0" + good[1:],
        "bits behind the last byte": "A" * 25 + "B",
        "a space at the end": good[:-1] + " ",
        "a line feed": good + "\n",
        "letters of another script": "\u0410" * 26,
    }


def proof(code: str, colony: str) -> dict[str, str]:
    return {
        "code": code,
        "server": SERVER,
        "colony": colony,
        "claim": claim_key(code).id,
        "executor": EXECUTOR,
        "proof": prove(code, server=SERVER, colony=colony, executor=EXECUTOR),
    }


def bad_proofs() -> list[dict[str, str]]:
    """A good one, changed in one thing each."""
    good = proof(CODES[2], "home")
    text = good["proof"]
    high = (ORDER - int(text[64:128], 16)).to_bytes(32, "big").hex()
    changes: dict[str, dict[str, str]] = {
        "for another server": {"server": EXECUTOR},
        "for another colony": {"colony": "Home"},
        "for another executor": {"executor": SERVER},
        "by another claim": {"claim": claim_key(CODES[1]).id},
        "a colony that holds a line feed": {"colony": "home\nx"},
        "empty": {"proof": ""},
        "upper case": {"proof": text.upper()},
        "v is 27": {"proof": text[:128] + "1b"},
        "v is the other": {"proof": text[:128] + ("01" if text.endswith("00") else "00")},
        "high s": {"proof": text[:64] + high + text[128:]},
        "one character less": {"proof": text[:-1]},
        "not hexadecimal": {"proof": "g" + text[1:]},
        "r is 0": {"proof": "0" * 64 + text[64:]},
    }
    return [{"why": why, **good, **change} for why, change in changes.items()]


def card(host: str, colony: str) -> dict[str, str]:
    text = pack_card(Card(host, SERVER, colony, CODES[2]))
    return {"card": text, "host": host, "server": SERVER, "colony": colony, "code": CODES[2]}


def bad_cards() -> list[dict[str, Any]]:
    good = pack_card(Card("colony.example", SERVER, "home", CODES[2]))
    other = "invalid_value"
    return [
        bad("empty", other, ""),
        bad("another version", other, good.replace(":1:", ":2:", 1)),
        bad("another scheme", other, "Colonist" + good[8:]),
        bad("no host", other, good.replace("colony.example", "")),
        bad("a host with a path", other, good.replace("example", "example/x")),
        bad("a host with a user", other, good.replace("colony.", "me@colony.")),
        bad("an address of a page", other, good.replace("colony.", "https://colony.")),
        bad("a port that is none", other, good.replace("example", "example:65536")),
        bad("a host with a space", other, good.replace("colony.", "colony ")),
        bad("a server id of 63 characters", other, good.replace(SERVER, SERVER[:-1])),
        bad("a server id in upper case", other, good.replace(SERVER, SERVER.upper())),
        bad("no colony", "bad_name", good.replace(":home:", "::")),
        bad("a colony that no name may be", "bad_name", good.replace(":home:", ":a/b:")),
        bad("a code of 25 characters", other, good[:-1]),
        bad("something behind the code", other, good + " "),
        bad("a line feed", other, good + "\n"),
        bad("one member less", other, good.replace(":home", "")),
        bad("too long", "out_of_bounds", good.replace("colony.", "c" * 512)),
    ]
