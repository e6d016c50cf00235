"""secp256k1 in pure Python, for machines without a libsecp256k1 wheel. Not constant time."""

from __future__ import annotations

import hashlib

from ecdsa import SECP256k1, SigningKey, ellipticcurve
from ecdsa.keys import BadSignatureError, VerifyingKey
from ecdsa.util import sigdecode_string, sigencode_strings

_ORDER: int = SECP256k1.order
_FIELD: int = SECP256k1.curve.p()


class Signer:
    """Signs digests with one private key."""

    __slots__ = ("_key", "public")

    def __init__(self, private: bytes) -> None:
        self._key = SigningKey.from_string(private, curve=SECP256k1)
        self.public: bytes = self._key.get_verifying_key().to_string("uncompressed")

    def sign(self, digest: bytes) -> bytes:
        """65 bytes `r s v` over a 32-byte digest (RFC 6979)."""
        r, s = self._key.sign_digest_deterministic(
            digest, hashfunc=hashlib.sha256, sigencode=sigencode_strings
        )
        if int.from_bytes(s, "big") > _ORDER // 2:
            s = (_ORDER - int.from_bytes(s, "big")).to_bytes(32, "big")
        for v in range(4):
            try:
                if recover(digest, r + s + bytes([v])) == self.public:
                    return bytes(r + s + bytes([v]))
            except ValueError:
                continue
        raise ValueError("no recovery id fits")  # pragma: no cover - arithmetic rules it out


def recover(digest: bytes, signature: bytes) -> bytes:
    """The uncompressed public key (65 bytes). Raises `ValueError` where there is none."""
    r, s = sigdecode_string(signature[:64], _ORDER)
    v = signature[64]
    x = r + (_ORDER if v & 2 else 0)
    if x >= _FIELD:
        raise ValueError("r is too large for this recovery id")
    y_squared = (pow(x, 3, _FIELD) + 7) % _FIELD
    y = pow(y_squared, (_FIELD + 1) // 4, _FIELD)
    if y * y % _FIELD != y_squared:
        raise ValueError("r is not the abscissa of a point")
    if y & 1 != v & 1:
        y = _FIELD - y
    point = ellipticcurve.PointJacobi(SECP256k1.curve, x, y, 1, _ORDER)
    inverse = pow(r, -1, _ORDER)
    scalar = int.from_bytes(digest, "big")
    public = (point * (s * inverse % _ORDER)) + (SECP256k1.generator * (-scalar * inverse % _ORDER))
    if public == ellipticcurve.INFINITY:
        raise ValueError("the point at infinity is no key")
    try:
        key = VerifyingKey.from_public_point(public, curve=SECP256k1)
    except BadSignatureError as error:  # pragma: no cover - a sum of points is on the curve
        raise ValueError(str(error)) from None
    return bytes(key.to_string("uncompressed"))
