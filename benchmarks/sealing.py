"""Sealed requests as ready bytes, made as `benchmarks.wire` makes plain ones: of nothing of ours.

What can be signed before the clock runs is: submits, and standing assigns, of which one signature
serves for a thousand grants. A close names its attempt and is signed under the clock, as a plain
one is. Replies are not checked while the clock runs: whoever asks has a machine of his own.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import urllib.request
from binascii import a2b_base64, b2a_base64
from typing import Any, NamedTuple

from benchmarks.place import Server
from benchmarks.wire import Key

GRANTS = 1000

_HEAD = b"POST /api HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%b"
_ENVELOPE = b'{"payloadtype":"%b","payload":"%b","seal":"%b","signature":"%b"}'
_CLOSE = b'{"msgtype":"closesuccessfulmsg","processid":"%b","out":["done"]}'
_CLOSE_SEAL = b'{"v":1,"to":"%b","attempt":"%b","seq":1}'
_EPOCH_SEAL = b'{"v":1,"to":"%b","epoch":"%b","id":"%032x","ttl":3600}'
_PROCESS_ID = b'"processid":"'
_TOKEN = b'"token":"'
_PAYLOAD = b'"payload":"'
_ID_CHARS = 64
_numbers = itertools.count()


class Granted(NamedTuple):
    """What a close needs of a grant."""

    process_id: bytes
    token: bytes


class Sealer:
    """Seals for one server: its id and its token of now."""

    def __init__(self, server: Server) -> None:
        key = (server.log.parent / "keys" / "server.key").read_text().strip()
        self.server_id = Key(bytes.fromhex(key)).id.encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/v1/epoch") as reply:
            self._epoch = json.load(reply)["epoch"].encode()

    def call(self, key: Key, kind: str, **fields: Any) -> bytes:
        """Any message under a seal of now."""
        message = json.dumps({"msgtype": kind, **fields}, separators=(",", ":")).encode()
        return _http(self._body(key, kind, message))

    def standing(self, key: Key, colony: str, timeout_s: int) -> list[bytes]:
        """The requests for each grant of one standing assign."""
        terms = {"count": GRANTS, "ahead": 1}
        fields = {"colonyname": colony, "timeout": timeout_s, "standing": terms}
        message = json.dumps({"msgtype": "assignprocessmsg", **fields}).encode()
        body = self._body(key, "assignprocessmsg", message)
        return [_http(b'%b,"index":%d}' % (body[:-1], index)) for index in range(GRANTS)]

    def close(self, key: Key, granted: Granted) -> bytes:
        """Close what was granted, as successful."""
        seal = _CLOSE_SEAL % (self.server_id, granted.token)
        return _http(_sealed(key, b"closesuccessfulmsg", _CLOSE % granted.process_id, seal))

    def _body(self, key: Key, kind: str, message: bytes) -> bytes:
        seal = _EPOCH_SEAL % (self.server_id, self._epoch, next(_numbers))
        return _sealed(key, kind.encode(), message, seal)


def granted(body: bytes) -> Granted:
    """The process and the attempt in the reply to an assign."""
    start = body.find(_PAYLOAD) + len(_PAYLOAD)
    payload = a2b_base64(body[start : body.find(b'"', start)])
    at = payload.find(_PROCESS_ID) + len(_PROCESS_ID)
    token = payload.find(_TOKEN) + len(_TOKEN)
    return Granted(payload[at : at + _ID_CHARS], payload[token : payload.find(b'"', token)])


def _sealed(key: Key, kind: bytes, message: bytes, seal: bytes) -> bytes:
    payload = b2a_base64(message, newline=False)
    text = b2a_base64(seal, newline=False)
    digest = hashlib.sha3_256(b"colonist:req:1\n%b\n%b" % (payload, text)).digest()
    return _ENVELOPE % (kind, payload, text, key.sign(digest).hex().encode())


def _http(body: bytes) -> bytes:
    return _HEAD % (len(body), body)
