"""Who signed a request: worked out once where it is judged at the door and then carried out."""

from __future__ import annotations

from typing import Final

from colonist_core.process import Cause
from colonist_protocol import envelope
from colonist_protocol.envelope import Envelope, Signed

MAX_KEPT: Final = 256

_Texts = tuple[str, str, str]


class Callers:
    """Signatures that were worked through just now, each to be asked for once more."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[_Texts, Signed] = {}

    def of(self, request: Envelope, seal: bytes = b"") -> Signed:
        """Who signed it; `seal` is the JSON of its seal. Raises `SignatureError`."""
        return self.kept(request) or envelope.authenticate(request, seal)

    def kept(self, request: Envelope) -> Signed | None:
        """Who signed it, where that was worked out just now."""
        return self._kept.pop(_texts(request), None) if self._kept else None

    def keep(self, request: Envelope, cause: Cause) -> None:
        """It will be asked for again soon."""
        if len(self._kept) >= MAX_KEPT:
            self._kept.clear()
        self._kept[_texts(request)] = Signed(cause.who, cause.digest, cause.signature, cause.seal)


def _texts(request: Envelope) -> _Texts:
    return request.payload, request.seal, request.signature
