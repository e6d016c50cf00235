"""Finds secrets in what programs showed and wrote, in whatever form they were put there."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from colonist_protocol import digests
from colonist_protocol.identity import Identity

PART = 12
"""Bytes of a key that give it away: a third of it is a leak too."""


def of_key(identity: Identity) -> dict[str, bytes]:
    """The secrets that a private key is and makes."""
    private = bytes.fromhex(identity.reveal())
    return {
        f"key {identity.id[:8]}": private,
        f"tokens of {identity.id[:8]}": hmac.digest(private, digests.TOKEN.encode(), "sha256"),
    }


def forms(secret: bytes) -> Iterator[bytes]:
    """Everything that a secret could look like; hexadecimal and text in lower case."""
    for part in _parts(secret):
        hexadecimal = part.hex().encode()
        yield part.lower()
        yield hexadecimal
        yield repr(part)[2:-1].encode().lower()
        yield ", ".join(map(str, part)).encode()
        yield b" ".join(hexadecimal[at : at + 2] for at in range(0, len(hexadecimal), 2))
    yield str(int.from_bytes(secret, "big")).encode()


def base64_forms(secret: bytes) -> Iterator[bytes]:
    """In base64 case counts, and where the text around it begins too."""
    for text in (secret, secret.hex().encode(), secret.hex().upper().encode()):
        for shift in range(3):
            inside = base64.b64encode(bytes(shift) + text)[4 if shift else 0 :]
            inside = inside.rstrip(b"=")[:-2]
            yield inside
            yield inside.translate(bytes.maketrans(b"+/", b"-_"))


def found(content: bytes, secrets: Mapping[str, bytes]) -> set[str]:
    """The names of the secrets that the content holds."""
    lower = content.lower()
    return {
        name
        for name, secret in secrets.items()
        if any(form in lower for form in forms(secret))
        or any(form in content for form in base64_forms(secret))
    }


def in_files(folder: Path, secrets: Mapping[str, bytes], *, but: Iterable[Path]) -> dict[str, Path]:
    """The secrets in the files below a folder, but for the files and folders that hold them."""
    allowed = set(but)
    return {
        name: path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink() and not allowed & {path, *path.parents}
        for name in found(path.read_bytes(), secrets)
    }


def _parts(secret: bytes) -> Iterator[bytes]:
    yield secret
    if not secret.isascii():  # a key; of a password any part may be a word
        for at in range(0, len(secret) - PART + 1, 10):
            yield secret[at : at + PART]
