"""What finds leaks finds every form of them."""

import base64
import json
from pathlib import Path

import pytest

from colonist_protocol.identity import Identity
from tests.support import leaks

KEY = Identity.from_hex("ddf7f7791208083b6a9ed975a72684f6406a269cfa36f1b1c32045c0a71fff05")
RAW = bytes.fromhex(KEY.reveal())
WORD = b"Zq7-hush-hush"
SECRETS = leaks.of_key(KEY) | {"word": WORD}


@pytest.mark.parametrize(
    "shown",
    [
        RAW,
        RAW.hex().encode(),
        RAW.hex().upper().encode(),
        RAW[8:24].hex().encode(),
        RAW[-16:],
        base64.b64encode(RAW),
        base64.urlsafe_b64encode(RAW).rstrip(b"="),
        base64.b64encode(b"x" + RAW + b"yz"),
        base64.b64encode(b"xy" + RAW),
        base64.b64encode(RAW.hex().encode()),
        base64.b64encode(b"key=" + RAW.hex().encode()),
        repr(RAW).encode(),
        repr({"private": RAW}).encode(),
        json.dumps(list(RAW)).encode(),
        str(int.from_bytes(RAW, "big")).encode(),
        RAW.hex(" ").encode(),
    ],
)
def test_a_key_is_found_in_every_form(shown: bytes) -> None:
    assert leaks.found(b"before " + shown + b" after", SECRETS) == {f"key {KEY.id[:8]}"}


@pytest.mark.parametrize(
    "shown", [WORD, WORD.upper(), base64.b64encode(b"a" + WORD), WORD.hex().encode()]
)
def test_a_password_is_found_in_every_form(shown: bytes) -> None:
    assert leaks.found(b"before " + shown + b" after", SECRETS) == {"word"}


def test_what_a_key_makes_tokens_with_is_a_secret_too() -> None:
    name = f"tokens of {KEY.id[:8]}"
    assert leaks.found(SECRETS[name].hex().encode(), SECRETS) == {name}


def test_an_id_and_a_signature_are_none() -> None:
    shown = f"{KEY.id} {KEY.sign(b'text')} {KEY!r}".encode()
    assert leaks.found(shown, SECRETS) == set()


def test_files_are_searched_but_for_those_that_may_hold_secrets(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    for name in ("keys/a.key", "log", "password"):
        (tmp_path / name).write_text(f"{KEY.reveal()}\n")
    held = leaks.in_files(tmp_path, SECRETS, but=[tmp_path / "keys", tmp_path / "password"])
    assert held == {f"key {KEY.id[:8]}": tmp_path / "log"}
