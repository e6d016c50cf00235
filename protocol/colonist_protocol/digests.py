"""Tagged digests: what every signature of a sealed message, key, claim or checkpoint covers.

`D(tag, a, b, ..)` is the SHA3-256 of the tag and the parts, joined by line feeds. Tags hold a `:`,
which base64 lacks, so no digest of one kind passes for another, or for a plain request.
"""

from __future__ import annotations

import hashlib
from typing import Final

from colonist_protocol.errors import InvalidValueError

REQUEST: Final = "colonist:req:1"
REPLY: Final = "colonist:rep:1"
HTTP: Final = "colonist:http:1"
CLAIM: Final = "colonist:claim:1"
CLAIM_KEY: Final = "colonist:claimkey:1"
KEY: Final = "colonist:key:1"
EVENT: Final = "colonist:event:1"
CHECKPOINT: Final = "colonist:checkpoint:1"
UPDATE: Final = "colonist:update:1"
TOKEN: Final = "colonist:token:1"  # noqa: S105 - a tag, no secret
EPOCH: Final = "colonist:epoch:1"
ATTEMPT: Final = "colonist:attempt:1"


def tagged_text(tag: str, *parts: str) -> bytes:
    """What `tagged_digest` hashes. Raises `InvalidValueError` for a part that has a line feed."""
    text = "\n".join([tag, *parts])
    if text.count("\n") != len(parts):
        raise InvalidValueError("a part of a digest holds a line feed: it could be read as two")
    return text.encode()


def tagged_digest(tag: str, *parts: str) -> bytes:
    """`D(tag, a, b, ..)`. Raises `InvalidValueError` for a part that holds a line feed."""
    return hashlib.sha3_256(tagged_text(tag, *parts)).digest()
