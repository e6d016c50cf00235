"""What an operator reads when the far end of an HTTP transport is not a Colonist server."""

import asyncio
import socket
import ssl
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from colonist_client.client import Client
from colonist_client.http import HttpTransport, check_url
from colonist_client.transport import NotSentError, UnreachableError
from colonist_protocol.errors import InvalidValueError
from tests.support.fake_server import FakeServer, serve


@asynccontextmanager
async def _raw(reply: bytes) -> AsyncGenerator[str]:
    """A server that answers these bytes to anything and hangs up; the URL."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(reply)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def _text(url: str, kind: type[UnreachableError], wait_s: float = 20) -> str:
    async with HttpTransport(url) as transport:
        with pytest.raises(UnreachableError) as raised:
            await transport.exchange(b"{}", wait_s=wait_s)
    assert type(raised.value) is kind
    assert raised.value.__suppress_context__ or raised.value.__context__ is None
    text = str(raised.value)
    assert text.startswith(url)
    assert "\n" not in text
    return text.removeprefix(f"{url}: ")


def _page(status: str, body: bytes = b"<html>", more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\n{more}"
    return head.encode() + b"\r\n" + body


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (_page("200 OK"), "something else answered, not a Colonist server (HTTP 200, text/html)"),
        (_page("302 Found", more="Location: /\r\n"), "something else answered"),
        (_page("404 Not Found"), "not a Colonist server (HTTP 404, text/html): wrong address"),
        (_page("502 Bad Gateway"), "a proxy in front of the server answered (HTTP 502"),
        (b"", "the connection broke before the reply came"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "the answer is not HTTP"),
        (_page("200 OK", b"{" * 5, "X: y\r\n")[:-2], "the connection broke"),
    ],
)
async def test_stranger_is_named(reply: bytes, text: str) -> None:
    async with _raw(reply) as url:
        assert (await _text(url, UnreachableError)).startswith(text)


async def test_nobody_there() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        assert await _text(url, NotSentError) == "no connection: Connection refused"


async def test_name_that_does_not_exist() -> None:
    text = await _text("http://nowhere.invalid:80", NotSentError)
    assert text == "the name nowhere.invalid cannot be resolved"


async def test_tls_to_a_plain_server() -> None:
    async with _raw(_page("200 OK")) as url:
        text = await _text(url.replace("http", "https"), NotSentError)
    assert text.startswith("TLS failed (does the server speak plain HTTP?)")


def _self_signed(folder: Path) -> tuple[Path, Path]:
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1"
    names = "-subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(
        ["openssl", *f"{options} {names} -keyout {key} -out {certificate}".split()],
        check=True,
        capture_output=True,
    )
    return key, certificate


async def test_certificate_that_nobody_trusts_and_one_that_is_trusted(tmp_path: Path) -> None:
    key, certificate = _self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = FakeServer()
    async with serve(server.answer, ssl_context=context) as url:
        text = await _text(url, NotSentError)
        assert text == "TLS: the server's certificate is not trusted: self-signed certificate"
        trusted = ssl.create_default_context(cafile=certificate)
        async with Client(HttpTransport(url, tls=trusted), None) as client:
            assert (await client.version()).buildversion == "fake"


async def test_reply_over_the_limit_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colonist_client.http.MAX_REPLY_BYTES", 1000)
    async with _raw(_page("200 OK", b"{" + b" " * 5000)) as url:
        assert await _text(url, UnreachableError) == "the reply is over 1000 bytes"


async def test_connection_is_used_again() -> None:
    peers: set[object] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.add(writer.get_extra_info("peername"))
        try:
            while await reader.readuntil(b"{}"):
                writer.write(_page("200 OK", b"{}"))
        except asyncio.IncompleteReadError:
            writer.close()
            await writer.wait_closed()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with HttpTransport(url) as transport:
            for _ in range(3):
                assert await transport.exchange(b"{}", wait_s=20) == b"{}"
    assert len(peers) == 1


@pytest.mark.parametrize(
    ("url", "checked"),
    [
        ("http://host", "http://host"),
        ("https://host:1/", "https://host:1"),
        ("http://[::1]:50080", "http://[::1]:50080"),
    ],
)
def test_url_in_its_plain_form(url: str, checked: str) -> None:
    assert check_url(url) == checked


@pytest.mark.parametrize(
    "url",
    [
        *("", "host", "ftp://host", "http://", "http://h:0", "http://h:99999", "http://h/api"),
        *("http://h?x", "http://h#x", "http://me:secret@h", "http://[::1"),
    ],
)
def test_url_that_is_none_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(InvalidValueError) as raised:
        check_url(url)
    assert "secret" not in str(raised.value)


async def test_close_ends_an_exchange_that_is_still_connecting() -> None:
    arrived = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    async with server:
        transport = HttpTransport(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        async with asyncio.TaskGroup() as group:
            task = group.create_task(_error_of(transport))
            await arrived.wait()
            async with asyncio.timeout(5):
                await transport.close()
                assert "closed by this program" in str(await task)


async def _error_of(transport: HttpTransport) -> UnreachableError | None:
    try:
        await transport.exchange(b"{}", wait_s=60)
    except UnreachableError as error:
        return error
    return None
