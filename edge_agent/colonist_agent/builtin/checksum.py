"""`checksum`: the digest of a file below an allowed root, or of what an allowed host serves.

Both lists are empty unless the configuration fills them. A path counts as what it is after all
symbolic links, checked again on the open file, so a link that changes in between gains nothing. A
URL is fetched from listed hosts only, redirects are not followed, and a listed name that resolves
to this machine or to a link-local address (where clouds keep credentials) is refused.

The result is `[digest, bytes]`.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from colonist_agent.context import Cancelled, Context
from colonist_agent.function import PythonFunction
from colonist_agent.outcome import FailError
from colonist_agent.thread import in_thread

ALGORITHMS: Final = ("sha256", "sha384", "sha512", "sha3_256", "blake2b", "sha1", "md5")
CHUNK_BYTES: Final = 1 << 20
CONNECT_S: Final = 10.0
READ_S: Final = 30.0

_OK: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """What may be read. Hosts are `name` (any port) or `name:port`."""

    roots: tuple[Path, ...] = ()
    hosts: tuple[str, ...] = ()
    max_bytes: int = 1 << 30


def function(allowed: Allowed) -> PythonFunction:
    """The function `checksum` within these limits."""

    async def checksum(context: Context, source: str, algorithm: str = "sha256") -> list[str | int]:
        """The digest and the size of a file, or of what a URL serves."""
        return await compute(allowed, source, algorithm, context.cancelled)

    return PythonFunction("checksum", checksum)


async def compute(
    allowed: Allowed, source: str, algorithm: str, cancelled: Cancelled
) -> list[str | int]:
    """`[digest, bytes]` of a path, a file URL or an http(s) URL. Raises `FailError`."""
    if algorithm not in ALGORITHMS:
        raise FailError(f"no algorithm {algorithm[:32]!r}; there are: {', '.join(ALGORITHMS)}")
    meter = _Meter(algorithm, allowed.max_bytes)
    parts = _split(source)
    if parts.scheme in ("http", "https"):
        await _fetch(allowed, parts, meter)
    elif parts.scheme in ("", "file"):
        path = Path(source) if parts.scheme == "" else Path(unquote(parts.path))
        await in_thread(lambda: _read(allowed, path, meter, cancelled), "checksum")
    else:
        raise FailError("source is neither a path nor a file, http or https URL")
    return [meter.digest(), meter.count]


class _Meter:
    def __init__(self, algorithm: str, limit: int) -> None:
        self._hash = hashlib.new(algorithm, usedforsecurity=False)
        self._limit = limit
        self.count = 0

    def add(self, data: bytes) -> None:
        self.count += len(data)
        if self.count > self._limit:
            raise FailError(f"source is over the limit of {self._limit} bytes")
        self._hash.update(data)

    def digest(self) -> str:
        return self._hash.hexdigest()


def _split(source: str) -> SplitResult:
    try:
        parts = urlsplit(source)
        _ = parts.port
    except ValueError:
        raise FailError("source cannot be read as a path or URL") from None
    if parts.scheme == "file" and parts.netloc not in ("", "localhost"):
        raise FailError("a file URL must name this machine")
    return parts if "://" in source else SplitResult("", "", source, "", "")


def _read(allowed: Allowed, path: Path, meter: _Meter, cancelled: Cancelled) -> None:
    if "\x00" in str(path) or not path.is_absolute():
        raise FailError("path is not absolute")
    roots = [os.path.realpath(root) for root in allowed.roots]
    # Before it is opened, as opening a device does something; and again, as links may have changed.
    _check_below(roots, os.path.realpath(path))
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            _check_below(roots, str(Path(f"/proc/self/fd/{descriptor}").readlink()))
            _measure(descriptor, meter, cancelled)
        finally:
            os.close(descriptor)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else "cannot be read"
        raise FailError(f"path: {reason}") from None


def _measure(descriptor: int, meter: _Meter, cancelled: Cancelled) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise FailError("path is no regular file")
    while chunk := os.read(descriptor, CHUNK_BYTES):
        if cancelled.is_set():
            raise FailError("cancelled")
        meter.add(chunk)


def _check_below(roots: list[str], real: str) -> None:
    # The same answer for what exists and what does not: nobody learns about other files.
    if not any(Path(real).is_relative_to(root) for root in roots):
        raise FailError("path is not below an allowed root")


async def _fetch(allowed: Allowed, parts: SplitResult, meter: _Meter) -> None:
    host = (parts.hostname or "").lower()
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if host not in allowed.hosts and f"{host}:{port}" not in allowed.hosts:
        raise FailError("the URL's host is not allowed")
    if parts.username or parts.password:
        raise FailError("the URL holds a user name")
    timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_S, sock_read=READ_S)
    connector = aiohttp.TCPConnector(resolver=_OutsideResolver(), force_close=True)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, auto_decompress=False
    ) as session:
        try:
            await _stream(session, parts.geturl(), meter)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise FailError(f"the URL cannot be fetched: {type(error).__name__}") from None


async def _stream(session: aiohttp.ClientSession, url: str, meter: _Meter) -> None:
    async with session.get(url, allow_redirects=False) as response:
        if response.status != _OK:
            raise FailError(f"the URL answers {response.status}; redirects are not followed")
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            meter.add(chunk)


class _OutsideResolver(AbstractResolver):
    """Resolves names to other machines only."""

    def __init__(self) -> None:
        self._inner = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        if any(_is_inside(each["host"]) for each in found):
            raise OSError(f"{host} resolves to this machine or its link")
        return found

    async def close(self) -> None:
        await self._inner.close()


def _is_inside(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified
