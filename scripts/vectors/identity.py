"""Keys, ids, signatures."""

from __future__ import annotations

import hashlib
from typing import Any

from colonist_protocol.identity import ORDER, Identity, digest, recover
from scripts.vectors.case import PUBLISHED, bad

FIELD = 2**256 - 2**32 - 977
UNICODE = 9  # the last of each ten messages is not ASCII

PUBLISHED_IDS = {
    "6d2fb6f546bacfd98c68769e61e0b44a697a30596c018a50e28200aa59b01c0a": (
        "4fef2b5a82d134d058c1883c72d6d9caf77cd59ca82d73105017590dea3dcb87"
    )
}
EDGE_SCALARS = [1, 2, 3, 5, 0xFFFF, 2**32, 2**64 - 1, 2**128, 2**255, ORDER // 2, ORDER // 2 + 1]
EDGE_SCALARS += [ORDER - 1, ORDER - 2, ORDER - 3]
# SHA3-256 takes 136 bytes at a time.
LENGTHS = [0, 1, 2, 3, 31, 32, 33, 55, 64, 134, 135, 136, 137, 271, 272, 273, 1000]


def vectors() -> dict[str, Any]:
    published = [
        {"private": private, "id": owner, "message": message, "signature": signature}
        for private, owner, message, signature in PUBLISHED
    ]
    return {
        "published": published,
        "published_ids": [{"private": key, "id": owner} for key, owner in PUBLISHED_IDS.items()],
        "signatures": [signed(number) for number in range(100)],
        "recovered": recovered(),
        "bad_signatures": bad_signatures(),
        "bad_keys": [
            bad("empty", "bad_key", ""),
            bad("62 characters", "bad_key", "11" * 31),
            bad("66 characters", "bad_key", "11" * 33),
            bad("not hexadecimal", "bad_key", "1g" + "11" * 31),
            bad("space inside", "bad_key", "11 " + "11" * 31),
            bad("zero", "bad_key", "00" * 32),
            bad("the order", "bad_key", scalar(ORDER)),
            bad("over the order", "bad_key", "ff" * 32),
            bad("digits of another script", "bad_key", "\u0661" * 64),
        ],
    }


def signed(number: int) -> dict[str, str]:
    key = EDGE_SCALARS[number] if number < len(EDGE_SCALARS) else derived(number)
    identity = Identity(key.to_bytes(32, "big"))
    length = LENGTHS[number % len(LENGTHS)]
    message = hashlib.shake_256(b"message %d" % number).hexdigest(length // 2 + 1)[:length]
    if number % 10 == UNICODE:
        message += "\u00e5\u65e5\U0001f41d"
    return {
        "private": identity.reveal(),
        "id": identity.id,
        "message": message,
        "digest": digest(message.encode()).hex(),
        "signature": identity.sign(message.encode()),
    }


def derived(number: int) -> int:
    return int.from_bytes(hashlib.sha3_256(b"colonist vector %d" % number).digest(), "big") % ORDER


def recovered() -> list[dict[str, str]]:
    """What no SDK writes, and is good all the same."""
    message = "hello"
    usual = PUBLISHED[1][3]
    # A point whose x lies between the order and the field gives r = x - order and v = 2 or 3.
    x = next(x for x in range(ORDER + 1, FIELD) if is_abscissa(x))
    overflowed = scalar(x - ORDER) + scalar(7)
    forms = {
        "upper case": usual.upper(),
        "r overflowed, even": overflowed + "02",
        "r overflowed, odd": overflowed + "03",
    }
    return [
        {"why": why, "message": message, "signature": text, "id": recover(message.encode(), text)}
        for why, text in forms.items()
    ]


def is_abscissa(x: int) -> bool:
    square = (x**3 + 7) % FIELD
    return pow(square, (FIELD - 1) // 2, FIELD) in (0, 1)


def bad_signatures() -> list[dict[str, Any]]:
    good = PUBLISHED[1][3]
    r, s, v = good[:64], good[64:128], good[128:]
    high = scalar(ORDER - int(s, 16))
    strange = scalar(next(x for x in range(1, 100) if not is_abscissa(x)))
    beyond = scalar(next(x for x in range(1, 100) if is_abscissa(x)) + FIELD - ORDER) + s
    # s R = z G: with R = k G this is s = z / k, and the sum of the recovery is nothing.
    z = int.from_bytes(digest(b"hello"), "big")
    nothing = min(z % ORDER, ORDER - z % ORDER)
    generator_x = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
    generator_v = "00" if nothing == z % ORDER else "01"
    return [
        bad("empty", "signature_length", ""),
        bad("no v", "signature_length", good[:128]),
        bad("one byte more", "signature_length", good + "00"),
        bad("one character less", "signature_length", good[:-1]),
        bad("not hexadecimal", "signature_hex", "g" + good[1:]),
        bad("two spaces for a byte", "signature_hex", "  " + good[2:]),
        bad("spaces between bytes", "signature_hex", good[:126] + "  " + v),
        bad("digits of another script", "signature_hex", "\u0661" * 130),
        bad("v is 4", "signature_range", r + s + "04"),
        bad("v is 27", "signature_range", r + s + "1b"),
        bad("v is 255", "signature_range", r + s + "ff"),
        bad("r is 0", "signature_range", scalar(0) + s + v),
        bad("r is the order", "signature_range", scalar(ORDER) + s + v),
        bad("r is all ones", "signature_range", "ff" * 32 + s + v),
        bad("s is 0", "signature_range", r + scalar(0) + v),
        bad("s is the order", "signature_range", r + scalar(ORDER) + v),
        bad("s is over half the order", "high_s", r + high + v),
        bad("s is half the order and one", "high_s", r + scalar(ORDER // 2 + 1) + v),
        bad("s is the order less one", "high_s", r + scalar(ORDER - 1) + v),
        bad("r is no abscissa", "signature_no_key", strange + s + v),
        bad("r cannot have overflowed", "signature_no_key", r + s + "02"),
        bad(
            "x is beyond the field, x less the field is an abscissa",
            "signature_no_key",
            beyond + "02",
        ),
        bad(
            "the point at infinity", "signature_no_key", generator_x + scalar(nothing) + generator_v
        ),
    ]


def scalar(number: int) -> str:
    return number.to_bytes(32, "big").hex()
