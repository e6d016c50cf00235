"""Keys, ids, signatures: COLONIES-RPC section 1.6.

secp256k1 and SHA3-256. A private key is 32 bytes as 64 hex characters; an id is the SHA3-256 of the
*text* of the uncompressed public key. A signature is recoverable: `r(32) s(32) v(1)` as 130 hex
characters, low s. Whoever recovers it knows the caller's id: there are no sessions.

libsecp256k1 (coincurve) does the work where it installs; elsewhere the pure-Python `ecdsa`, which
has no side-channel protection and is about 150 times slower.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Final, Protocol

from colonist_protocol.errors import (
    HighSError,
    InvalidValueError,
    KeyFormError,
    NoKeyError,
    SignatureHexError,
    SignatureLengthError,
    SignatureRangeError,
)


class Signer(Protocol):
    """Signs digests with one private key."""

    @property
    def public(self) -> bytes:
        """The uncompressed public key, 65 bytes."""
        ...

    def sign(self, digest: bytes, /) -> bytes:
        """65 bytes `r s v` over a 32-byte digest (RFC 6979, low s)."""
        ...


class Curve(Protocol):
    """What a module that does the arithmetic offers."""

    def Signer(self, private: bytes, /) -> Signer:  # noqa: N802 - a class in the modules
        """Take a private key of 32 bytes."""
        ...

    def recover(self, digest: bytes, signature: bytes, /) -> bytes:
        """The uncompressed public key. Raises `ValueError` where there is none."""
        ...


curve: Curve
try:
    from colonist_protocol import curve_libsecp

    curve = curve_libsecp
except ImportError:  # no wheel for this machine
    from colonist_protocol import curve_pure

    curve = curve_pure

ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
SIGNATURE_CHARS: Final = 130
ID_CHARS: Final = 64
KEY_BYTES: Final = 32

_HALF_ORDER: Final = (ORDER // 2).to_bytes(32, "big")
_KEY: Final = re.compile("[0-9A-Fa-f]{64}")
_HEX: Final = frozenset("0123456789abcdef")
_V_MAX: Final = 3


def digest(text: bytes) -> bytes:
    """The SHA3-256 that a signature covers."""
    return hashlib.sha3_256(text).digest()


def is_id(text: str) -> bool:
    """Whether the text has the form of an id: 64 lower-case hex characters."""
    return len(text) == ID_CHARS and _HEX.issuperset(text)


class Identity:
    """A private key and the id that it stands for. Its `repr` shows the id only."""

    __slots__ = ("_private", "_signer", "id")

    def __init__(self, private: bytes) -> None:
        """Raises `KeyFormError` when the 32 bytes are no valid scalar."""
        if not 0 < int.from_bytes(private, "big") < ORDER or len(private) != KEY_BYTES:
            raise KeyFormError("private key is not 32 bytes within the order of the curve")
        self._private = private
        self._signer = curve.Signer(private)
        self.id = _id_of(self._signer.public)

    @classmethod
    def from_hex(cls, text: str) -> Identity:
        """Read 64 hex characters. Raises `KeyFormError`, which does not repeat them."""
        if _KEY.fullmatch(text.strip()) is None:
            raise KeyFormError("private key is not 64 hexadecimal characters")
        return cls(bytes.fromhex(text))

    @classmethod
    def from_entropy(cls, entropy: bytes) -> Identity:
        """The key made from at least 32 random bytes, as the SDKs make theirs."""
        if len(entropy) < KEY_BYTES:
            raise InvalidValueError("a key needs at least 32 random bytes")
        return cls(hashlib.sha3_256(entropy).digest())

    def sign(self, text: bytes) -> str:
        """Sign the SHA3-256 of the text: 130 hex characters (RFC 6979, low s)."""
        return self.sign_digest(digest(text)).hex()

    def sign_digest(self, digest32: bytes) -> bytes:
        """The signature of a SHA3-256 digest: `r(32) s(32) v(1)`."""
        return self._signer.sign(digest32)

    def reveal(self) -> str:
        """The private key as 64 hex characters, to be stored and shown to nobody."""
        return self._private.hex()

    def __repr__(self) -> str:
        return f"Identity({self.id})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and hmac.compare_digest(self._private, other._private)

    def __hash__(self) -> int:
        return hash(self.id)


def recover(text: bytes, signature: str) -> str:
    """The id whose key signed the text. Raises `SignatureError`."""
    return recover_digest(digest(text), parse_signature(signature))


def recover_digest(digest32: bytes, signature: bytes) -> str:
    """The id whose key signed the digest; the signature as `parse_signature` returned it.

    Raises `NoKeyError`.
    """
    try:
        return _id_of(curve.recover(digest32, signature))
    except ValueError:
        raise NoKeyError("Failed to recover public key: the signature fits no key") from None


def parse_signature(text: str) -> bytes:
    """Read and bound a signature: length, hex, v in 0..3, r and s in range, low s.

    Raises `SignatureError`.
    """
    if len(text) != SIGNATURE_CHARS:
        raise SignatureLengthError(f"Invalid signature length: {len(text)}, not {SIGNATURE_CHARS}")
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raise SignatureHexError("Invalid signature: not hexadecimal") from None
    if len(raw) * 2 != SIGNATURE_CHARS:  # fromhex skips white space
        raise SignatureHexError("Invalid signature: not hexadecimal")
    if raw[64] > _V_MAX:
        raise SignatureRangeError(f"Invalid signature: recovery id {raw[64]} is not 0 to {_V_MAX}")
    if not 0 < int.from_bytes(raw[:32], "big") < ORDER:
        raise SignatureRangeError("Invalid signature: r is out of range")
    if not 0 < int.from_bytes(raw[32:64], "big") < ORDER:
        raise SignatureRangeError("Invalid signature: s is out of range")
    if raw[32:64] > _HALF_ORDER:
        raise HighSError("Failed verify signature: Signature s value is over half the order")
    return raw


def _id_of(public: bytes) -> str:
    return hashlib.sha3_256(public.hex().encode()).hexdigest()
