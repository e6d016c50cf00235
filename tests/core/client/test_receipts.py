"""Sealed replies that name an event are kept as they came, and no fault costs a reply."""

from __future__ import annotations

import logging
import stat
from base64 import b64encode
from pathlib import Path

import pytest

from colonist_client.receipts import ReceiptKeeper, event_of
from tests.support.audit_files import compact

EVENT = "ab" * 32


def reply(event: str) -> bytes:
    seal = {
        "v": 1,
        "to": "0" * 64,
        "re": "1" * 64,
        "index": 0,
        "ok": True,
        "epoch": "",
        "time": 5,
        "members": 1,
        "event": event,
    }
    text = b64encode(compact(seal)).decode()
    return compact({"payloadtype": "x", "payload": "e30=", "seal": text, "signature": "00"})


class Echo:
    way = "echo"

    def __init__(self) -> None:
        self.is_closed = False

    async def exchange(self, body: bytes, *, wait_s: float) -> bytes:
        del wait_s
        return body

    async def close(self) -> None:
        self.is_closed = True


async def test_a_reply_that_names_an_event_is_kept(tmp_path: Path) -> None:
    folder, echo = tmp_path / "new" / "receipts", Echo()
    keeper = ReceiptKeeper(echo, folder)
    assert await keeper.exchange(reply(EVENT), wait_s=1) == reply(EVENT)
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert files == {f"{EVENT}.json": reply(EVENT), f"{EVENT}.request.json": reply(EVENT)}
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    await keeper.close()
    assert (keeper.way, echo.is_closed) == ("echo", True)


@pytest.mark.parametrize(
    "body",
    [reply(""), b"no reply", b"{}", b'{"payloadtype":"x","payload":"e30=","seal":"!"}'],
)
async def test_any_other_reply_is_none(tmp_path: Path, body: bytes) -> None:
    keeper = ReceiptKeeper(Echo(), tmp_path / "receipts")
    assert await keeper.exchange(body, wait_s=1) == body
    assert event_of(body) == ""
    assert not (tmp_path / "receipts").exists()


async def test_a_receipt_that_cannot_be_kept_is_told_and_costs_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    keeper = ReceiptKeeper(Echo(), tmp_path / "file")
    with caplog.at_level(logging.WARNING):
        assert await keeper.exchange(reply(EVENT), wait_s=1) == reply(EVENT)
    assert "a receipt is not kept" in caplog.text
