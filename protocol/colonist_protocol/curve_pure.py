"""secp256k1 in pure Python, for machines without a libsecp256k1 wheel. Not constant time."""

from __future__ import annotations

import hashlib
from typing import Final

from ecdsa import SECP256k1, SigningKey
from ecdsa.ellipticcurve import INFINITY, PointJacobi
from ecdsa.util import sigencode_strings

_ORDER: Final = SECP256k1.order
_FIELD: Final = SECP256k1.curve.p()
_SIGNATURE_BYTES: Final = 65
_V_MAX: Final = 3


class Signer:
    """Signs digests with one private key."""

    __slots__ = ("_key", "public")

    def __init__(self, private: bytes) -> None:
        self._key = SigningKey.from_string(private, curve=SECP256k1)
        self.public: bytes = self._key.verifying_key.to_string("uncompressed")

    def sign(self, digest: bytes) -> bytes:
        """65 bytes `r s v` over a 32-byte digest (RFC 6979)."""
        pair: tuple[bytes, bytes] = self._key.sign_digest_deterministic(
            digest, hashfunc=hashlib.sha256, sigencode=sigencode_strings
        )
        r, s = pair
        if int.from_bytes(s, "big") > _ORDER // 2:
            s = (_ORDER - int.from_bytes(s, "big")).to_bytes(32, "big")
        # 2 and 3 mean that r overflowed: one signature in 2**127.
        v = b"\x00" if recover(digest, r + s + b"\x00") == self.public else b"\x01"
        return r + s + v


def recover(digest: bytes, signature: bytes) -> bytes:
    """The uncompressed public key (65 bytes). Raises `ValueError` where there is none."""
    if len(signature) != _SIGNATURE_BYTES or signature[64] > _V_MAX:
        raise ValueError("a signature is 65 bytes, the last of them 0 to 3")
    r, s, v = (
        int.from_bytes(signature[:32], "big"),
        int.from_bytes(signature[32:64], "big"),
        signature[64],
    )
    if not 0 < r < _ORDER or not 0 < s < _ORDER:
        raise ValueError("r or s is out of range")
    point = _lift(r + (_ORDER if v & 2 else 0), v & 1)
    inverse = pow(r, -1, _ORDER)
    scalar = int.from_bytes(digest, "big")
    public = point * (s * inverse % _ORDER) + SECP256k1.generator * (-scalar * inverse % _ORDER)
    if public == INFINITY:
        raise ValueError("the point at infinity is no key")
    x: int = public.x()
    y: int = public.y()
    return b"\x04" + x.to_bytes(32, "big") + y.to_bytes(32, "big")


def _lift(x: int, parity: int) -> PointJacobi:
    """The point with this abscissa."""
    if x >= _FIELD:
        raise ValueError("r is too large for this recovery id")
    y_squared = (pow(x, 3, _FIELD) + 7) % _FIELD
    y = pow(y_squared, (_FIELD + 1) // 4, _FIELD)
    if y * y % _FIELD != y_squared:
        raise ValueError("r is not the abscissa of a point")
    if y & 1 != parity:
        y = _FIELD - y
    return PointJacobi(SECP256k1.curve, x, y, 1, _ORDER)
