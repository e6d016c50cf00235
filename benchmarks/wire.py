"""Signed requests as ready bytes: COLONIES-RPC sections 1.2 to 1.6, with as little work as can be.

This module knows nothing of Colonist's own packages: what is measured does not measure itself. A
request that never changes (an executor's poll: RFC 6979 signs the same text the same way) is made
once; only a close, which names its process, is made while the clock runs.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from binascii import a2b_base64, b2a_base64
from typing import Any

from coincurve import PrivateKey

Json = dict[str, Any]

_HEAD = b"POST /api HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%b"
_ENVELOPE = b'{"payloadtype":"%b","payload":"%b","signature":"%b"}'
_CLOSE = b'{"msgtype":"closesuccessfulmsg","processid":"%b","out":["done"]}'
_PAYLOAD = b'"payload":"'
_PROCESS_ID = b'"processid":"'
_FIRST_CHARS = 400  # base64 that surely holds a leading process id
_ID_CHARS = 64

HEALTH = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


class Key:
    """A private key, its id, and requests signed by it."""

    __slots__ = ("_sign", "id")

    def __init__(self, private: bytes = b"") -> None:
        """A new key, unless one is given."""
        key = PrivateKey(private or os.urandom(32))
        public = key.public_key.format(compressed=False)
        self.id = hashlib.sha3_256(public.hex().encode()).hexdigest()
        self._sign = key.sign_recoverable

    def sign(self, digest: bytes) -> bytes:
        """The recoverable signature of a digest."""
        return self._sign(digest, None)

    def request(self, kind: bytes, message: bytes) -> bytes:
        """The whole HTTP request that carries the message."""
        payload = b2a_base64(message, newline=False)
        signature = self._sign(hashlib.sha3_256(payload).digest(), None)
        body = _ENVELOPE % (kind, payload, signature.hex().encode())
        return _HEAD % (len(body), body)

    def call(self, kind: str, **fields: Any) -> bytes:
        """Any message by its name and fields."""
        message = json.dumps({"msgtype": kind, **fields}, separators=(",", ":"))
        return self.request(kind.encode(), message.encode())

    def close(self, process_id: bytes) -> bytes:
        """Close a process as successful: the one request that is signed under the clock."""
        return self.request(b"closesuccessfulmsg", _CLOSE % process_id)

    def assign(self, colony: str, timeout_s: int) -> bytes:
        """Ask for work; negative: do not wait."""
        return self.call("assignprocessmsg", colonyname=colony, timeout=timeout_s)

    def submit(self, spec: Json) -> bytes:
        """Submit one process."""
        return self.call("submitfuncspecmsg", spec=spec)


def spec(
    colony: str, kind: str, serial: int, executor_names: tuple[str, ...] | None = None
) -> Json:
    """A function spec of ordinary size: about 500 bytes; the serial number makes it distinct."""
    return {
        "nodename": "",
        "funcname": "measure",
        "args": ["sensor-17", serial],
        "kwargs": {"unit": "celsius", "window": "60s"},
        "priority": 0,
        "maxwaittime": -1,
        "maxexectime": 600,
        "maxretries": 3,
        "conditions": {
            "colonyname": colony,
            "executornames": list(executor_names) if executor_names else None,
            "executortype": kind,
            "dependencies": [],
            "nodes": 0,
            "cpu": "",
            "processes": 0,
            "processespernode": 0,
            "mem": "",
            "storage": "",
            "walltime": 0,
        },
        "label": "",
        "env": {"SITE": "hall-3"},
    }


def process_id(body: bytes) -> bytes:
    """The process id in a reply that carries a process: without parsing what is not needed."""
    at = body.find(_PAYLOAD)
    if at >= 0:
        start = at + len(_PAYLOAD)
        found = _leading_id(a2b_base64(body[start : start + _FIRST_CHARS].partition(b'"')[0]))
        if found:
            return found
    return str(reply(body)["processid"]).encode()


def _leading_id(text: bytes) -> bytes:
    at = text.find(_PROCESS_ID)
    if at < 0:
        return b""
    at += len(_PROCESS_ID)
    found = text[at : at + _ID_CHARS]
    return found if len(found) == _ID_CHARS else b""


def reply(body: bytes) -> Any:
    """The JSON inside a reply."""
    return json.loads(base64.b64decode(json.loads(body)["payload"]))
