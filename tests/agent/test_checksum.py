"""`checksum` reads what it may and nothing else: links, devices, hosts, sizes."""

import hashlib
import os
from pathlib import Path

import pytest
from aiohttp import web

from colonist_agent.builtin import checksum
from colonist_agent.builtin.checksum import Allowed, compute
from colonist_agent.context import Cancelled
from colonist_agent.outcome import FailError

CONTENT = b"what a sensor said" * 1000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "allowed"
    folder.mkdir()
    (folder / "file").write_bytes(CONTENT)
    (tmp_path / "secret").write_bytes(b"not yours")
    return folder


async def _compute(allowed: Allowed, source: str, algorithm: str = "sha256") -> list[str | int]:
    return await compute(allowed, source, algorithm, Cancelled())


@pytest.mark.parametrize("algorithm", checksum.ALGORITHMS)
async def test_digest_and_size_of_a_file(root: Path, algorithm: str) -> None:
    expected = [hashlib.new(algorithm, CONTENT).hexdigest(), len(CONTENT)]
    allowed = Allowed(roots=(root,))
    assert await _compute(allowed, str(root / "file"), algorithm) == expected
    assert await _compute(allowed, f"file://{root}/file", algorithm) == expected


@pytest.mark.parametrize(
    "source",
    [
        "{root}/../secret",
        "{root}/link",
        "{root}/folder/secret",
        "{root}-beside",
        "/etc/passwd",
        "/nowhere/at/all",
        "file://{root}/../secret",
        "file://{root}/%2e%2e/secret",
    ],
)
async def test_nothing_outside_of_the_roots_is_read(root: Path, source: str) -> None:
    (root / "link").symlink_to(root.parent / "secret")
    (root / "folder").symlink_to(root.parent)
    (root.parent / "allowed-beside").write_bytes(b"near")
    with pytest.raises(FailError, match="not below an allowed root"):
        await _compute(Allowed(roots=(root,)), source.format(root=root))


async def test_link_that_changes_after_the_check_gains_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = root / "link"
    link.symlink_to(root / "file")
    opened = os.open

    def swap_then_open(path: str, flags: int) -> int:
        link.unlink()
        link.symlink_to(root.parent / "secret")
        return opened(path, flags)

    monkeypatch.setattr("colonist_agent.builtin.checksum.os.open", swap_then_open)
    with pytest.raises(FailError, match="not below an allowed root"):
        await _compute(Allowed(roots=(root,)), str(link))


async def test_link_that_stays_inside_is_followed(root: Path) -> None:
    (root / "link").symlink_to(root / "file")
    assert (await _compute(Allowed(roots=(root,)), str(root / "link")))[1] == len(CONTENT)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{root}", "no regular file"),
        ("{root}/pipe", "no regular file"),
        ("{root}/missing", "No such file"),
        ("relative", "not absolute"),
        ("{root}/\x00", "not absolute"),
        ("ftp://host/file", "neither a path"),
        ("file://elsewhere/file", "this machine"),
        ("http://[", "cannot be read"),
    ],
)
async def test_what_is_no_plain_file_fails_clearly(root: Path, source: str, reason: str) -> None:
    os.mkfifo(root / "pipe")
    with pytest.raises(FailError, match=reason):
        await _compute(Allowed(roots=(root,)), source.format(root=root))


async def test_limits_hold(root: Path) -> None:
    with pytest.raises(FailError, match="over the limit of 100 bytes"):
        await _compute(Allowed(roots=(root,), max_bytes=100), str(root / "file"))
    with pytest.raises(FailError, match="no algorithm 'crc32'"):
        await _compute(Allowed(roots=(root,)), str(root / "file"), "crc32")
    with pytest.raises(FailError, match="not below"):
        await _compute(Allowed(), str(root / "file"))


async def _serve(aiohttp_app: web.Application) -> tuple[web.AppRunner, int]:
    runner = web.AppRunner(aiohttp_app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, runner.addresses[0][1]


async def test_only_listed_hosts_are_fetched_and_redirects_not_followed() -> None:
    async def content(_: web.Request) -> web.Response:
        return web.Response(body=CONTENT)

    async def away(_: web.Request) -> web.Response:
        raise web.HTTPFound("/file")

    app = web.Application()
    app.router.add_get("/file", content)
    app.router.add_get("/away", away)
    runner, port = await _serve(app)
    try:
        url = f"http://127.0.0.1:{port}/file"
        expected = [hashlib.sha256(CONTENT).hexdigest(), len(CONTENT)]
        assert await _compute(Allowed(hosts=("127.0.0.1",)), url) == expected
        assert await _compute(Allowed(hosts=(f"127.0.0.1:{port}",)), url) == expected
        for hosts in ((), ("127.0.0.1:1",), ("example.org",)):
            with pytest.raises(FailError, match="host is not allowed"):
                await _compute(Allowed(hosts=hosts), url)
        with pytest.raises(FailError, match="redirects are not followed"):
            await _compute(Allowed(hosts=("127.0.0.1",)), url.replace("/file", "/away"))
        with pytest.raises(FailError, match="over the limit"):
            await _compute(Allowed(hosts=("127.0.0.1",), max_bytes=10), url)
        with pytest.raises(FailError, match="user name"):
            await _compute(Allowed(hosts=("127.0.0.1",)), url.replace("//", "//me:pass@"))
        # A listed name that turns out to be this machine.
        with pytest.raises(FailError, match="cannot be fetched"):
            await _compute(Allowed(hosts=("localhost",)), url.replace("127.0.0.1", "localhost"))
    finally:
        await runner.cleanup()
