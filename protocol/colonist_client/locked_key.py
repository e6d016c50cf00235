"""The form of a key file under a passphrase: scrypt makes a key of it, AES-256-GCM keeps ours.

One JSON object. Everything in it but `sealed` is associated data: whoever changes a member, the id
for one, makes the whole unreadable. What scrypt costs stands in the file and is bounded, so that a
file from elsewhere cannot take all memory or time.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from colonist_protocol.errors import InvalidValueError
from colonist_protocol.identity import KEY_BYTES, Identity, is_id

VERSION: Final = 1

_KIND: Final = "key"
_KDF: Final = "scrypt"
_CIPHER: Final = "aes-256-gcm"
_TAG: Final = b"colonist:keyfile:1\n"
_SALT_BYTES: Final = 16
_NONCE_BYTES: Final = 12
_SEALED_BYTES: Final = KEY_BYTES + 16
_LEAST_N: Final = 1 << 14
_MOST_MEMORY: Final = 1 << 28
_MOST_WORK: Final = 1 << 30
_BLOCK_BYTES: Final = 128
_HEX: Final = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Cost:
    """What one guess at a passphrase costs: 128 MiB of memory, 0.3 s on a small cloud core."""

    n: int = 1 << 17
    r: int = 8
    p: int = 1


DEFAULT_COST: Final = Cost()


class LockedKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A file's members, in the order in which they are written and authenticated."""

    colonist: str
    v: int
    id: str
    kdf: str
    n: int
    r: int
    p: int
    salt: str
    cipher: str
    nonce: str
    sealed: str


def is_locked(content: bytes) -> bool:
    """Whether the content of a key file is meant to be of this form."""
    return content.lstrip().startswith(b"{")


def lock(identity: Identity, passphrase: bytes, cost: Cost = DEFAULT_COST) -> bytes:
    """The content of a key file under a passphrase. Raises `InvalidValueError`."""
    bare = LockedKey(
        colonist=_KIND,
        v=VERSION,
        id=identity.id,
        kdf=_KDF,
        n=cost.n,
        r=cost.r,
        p=cost.p,
        salt=secrets.token_bytes(_SALT_BYTES).hex(),
        cipher=_CIPHER,
        nonce=secrets.token_bytes(_NONCE_BYTES).hex(),
        sealed="",
    )
    private = bytes.fromhex(identity.reveal())
    sealed: bytes = _cipher(bare, passphrase).encrypt(
        bytes.fromhex(bare.nonce), private, _header(bare)
    )
    return msgspec.json.encode(msgspec.structs.replace(bare, sealed=sealed.hex())) + b"\n"


def parse(content: bytes) -> LockedKey:
    """The members, each within its bounds. Raises `InvalidValueError`."""
    try:
        found = msgspec.json.decode(content, type=LockedKey)
    except (msgspec.DecodeError, RecursionError):
        raise InvalidValueError("holds neither a private key nor one under a passphrase") from None
    if found.colonist != _KIND or found.v != VERSION:
        raise InvalidValueError(
            f"is of a form that this program does not know: version {found.v}, not {VERSION}"
        )
    if (found.kdf, found.cipher) != (_KDF, _CIPHER) or not _has_form(found):
        raise InvalidValueError("is damaged, or of another program: a member is not as it must be")
    if not _is_bearable(found.n, found.r, found.p):
        raise InvalidValueError(
            f"asks for scrypt with n={found.n}, r={found.r}, p={found.p}, which is out of bounds"
        )
    return found


def unlock(locked: LockedKey, passphrase: bytes) -> Identity:
    """The key. Raises `InvalidValueError`."""
    cipher = _cipher(locked, passphrase)
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - `_cipher` has loaded it

    try:
        private = cipher.decrypt(
            bytes.fromhex(locked.nonce), bytes.fromhex(locked.sealed), _header(locked)
        )
    except InvalidTag:
        raise InvalidValueError("wrong passphrase, or a damaged file") from None
    identity = Identity(private)
    if identity.id != locked.id:
        raise InvalidValueError("is damaged: its key has another id than it says")
    return identity


def _has_form(found: LockedKey) -> bool:
    texts = ((found.salt, _SALT_BYTES), (found.nonce, _NONCE_BYTES), (found.sealed, _SEALED_BYTES))
    return is_id(found.id) and all(
        len(text) == 2 * size and _HEX.issuperset(text) for text, size in texts
    )


def _is_bearable(n: int, r: int, p: int) -> bool:
    """At most 256 MiB, and eight times the work of the default."""
    if n < _LEAST_N or n & (n - 1) or r < 1 or p < 1:
        return False
    memory = _BLOCK_BYTES * n * r
    return memory <= _MOST_MEMORY and memory * p <= _MOST_WORK


def _header(locked: LockedKey) -> bytes:
    return _TAG + msgspec.json.encode(msgspec.structs.replace(locked, sealed=""))


def _cipher(locked: LockedKey, passphrase: bytes) -> Any:
    """AES-GCM under the key that scrypt makes of a passphrase. Raises `InvalidValueError`."""
    aead, scrypt = _library()
    try:
        derived = scrypt(
            salt=bytes.fromhex(locked.salt), length=32, n=locked.n, r=locked.r, p=locked.p
        ).derive(passphrase)
    except MemoryError:
        needed = _BLOCK_BYTES * locked.n * locked.r >> 20
        raise InvalidValueError(f"needs {needed} MiB of memory, which are not free here") from None
    return aead(derived)


def _library() -> tuple[Any, Any]:
    """Loaded when it is needed: an agent may live on a machine that has no wheel of it."""
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415
        from cryptography.hazmat.primitives.kdf.scrypt import Scrypt  # noqa: PLC0415
    except ImportError:
        raise InvalidValueError(
            "a passphrase needs the package `cryptography`: pip install 'colonist[keys]'; for a "
            "machine that has none, take the passphrase off elsewhere: colonist key decrypt"
        ) from None
    return AESGCM, Scrypt
