"""The newest epoch token, read from sealed replies that pass, for devices that have none yet.

Only from replies of the pinned server, and only where the token is a new one: about one check of a
signature a minute. To a device it is a hint all the same; without a pin there is none.
"""

from __future__ import annotations

from colonist_bridge.reply import Reply
from colonist_client.sealer import Pin
from colonist_protocol.envelope import open_sealed_reply
from colonist_protocol.errors import ColonistError
from colonist_protocol.tokens import read_epoch


class Epochs:
    """What the pinned server last said of its time."""

    def __init__(self, pin: Pin | None) -> None:
        self._pin = pin
        self.token = ""

    def heard(self, reply: Reply) -> None:
        """A reply came."""
        seal, pin = reply.seal, self._pin
        if seal is None or pin is None or not self._is_newer(seal.epoch):
            return
        try:
            genuine = open_sealed_reply(
                reply.body, server=pin.id, caller=seal.to, re=seal.re, index=seal.index
            )
        except ColonistError:
            return
        pin.follow(genuine.server)
        self.token = seal.epoch

    def _is_newer(self, text: str) -> bool:
        token, known = read_epoch(text), read_epoch(self.token)
        if token is None:
            return False
        return known is None or token.era != known.era or token.n > known.n
