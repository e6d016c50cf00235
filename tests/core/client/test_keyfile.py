"""Key files: plain, or under a passphrase; wrong ones are refused without their content."""

import base64
import builtins
import hashlib
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from colonist_client import keyfile, locked_key, secret_file
from colonist_client.custody import Custody
from colonist_client.locked_key import Cost, lock, parse, unlock
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.identity import Identity

HEX = "ddf7f7791208083b6a9ed975a72684f6406a269cfa36f1b1c32045c0a71fff05"
ID = "3fc05cf3df4b494e95d6a3d297a34f19938f7daa7422ab0d4f794454133341ac"
KEY = Identity.from_hex(HEX)
PASSPHRASE = b"correct horse"
CHEAP = Cost(n=1 << 14)
"""Each guess takes 30 ms, not 300."""

LOCKED = lock(KEY, PASSPHRASE, CHEAP)


def asked(*answers: str) -> Custody:
    """Somebody who types these."""
    left = list(answers)
    return Custody({}, lambda _: left.pop(0))


def stored(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "key"
    secret_file.write(path, content)
    return path


def changed(**members: object) -> bytes:
    return json.dumps(json.loads(LOCKED) | members).encode()


def test_a_plain_key_is_64_hex_digits_and_a_line_end(tmp_path: Path) -> None:
    keyfile.write(tmp_path / "key", KEY)
    assert (tmp_path / "key").read_text() == HEX + "\n"
    assert keyfile.read(tmp_path / "key") == KEY
    assert keyfile.id_of(tmp_path / "key") == ID
    assert keyfile.open_file(tmp_path / "key").passphrase is None


@pytest.mark.parametrize("content", [b"", b"no key", HEX.encode() + b"00", b"\xff\xfe", b"0" * 64])
def test_file_without_a_key_is_refused_without_its_content(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InvalidValueError, match="holds no private key") as raised:
        keyfile.read(stored(tmp_path, content))
    assert raised.value.__suppress_context__


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
def test_key_file_that_others_can_get_at_is_refused(tmp_path: Path, mode: int) -> None:
    path = stored(tmp_path, HEX.encode())
    path.chmod(mode)
    for look in (keyfile.read, keyfile.id_of):
        with pytest.raises(InvalidValueError, match=f"mode {mode:04o}.*chmod 600"):
            look(path)


# -- under a passphrase


def test_the_form_is_what_the_page_says() -> None:
    """Opened by other means: OpenSSL's scrypt, and the associated data written out."""
    found = json.loads(LOCKED)
    assert list(found) == [
        "colonist", "v", "id", "kdf", "n", "r", "p", "salt", "cipher", "nonce", "sealed",
    ]  # fmt: skip
    salt, nonce, sealed = (bytes.fromhex(found[name]) for name in ("salt", "nonce", "sealed"))
    derived = hashlib.scrypt(PASSPHRASE, salt=salt, n=16384, r=8, p=1, maxmem=1 << 26, dklen=32)
    header = (
        'colonist:keyfile:1\n{"colonist":"key","v":1,"id":"' + ID + '","kdf":"scrypt","n":16384,'
        f'"r":8,"p":1,"salt":"{salt.hex()}","cipher":"aes-256-gcm","nonce":"{nonce.hex()}",'
        '"sealed":""}'
    ).encode()
    assert AESGCM(derived).decrypt(nonce, sealed, header).hex() == HEX


def test_each_file_has_its_own_salt_and_nonce() -> None:
    first, second = parse(LOCKED), parse(lock(KEY, PASSPHRASE, CHEAP))
    assert first.salt != second.salt
    assert first.nonce != second.nonce


def test_a_new_key_costs_a_guesser_128_mib() -> None:
    assert Cost() == Cost(n=131_072, r=8, p=1)


def test_it_opens_with_its_passphrase_only(tmp_path: Path) -> None:
    path = stored(tmp_path, LOCKED)
    opened = keyfile.open_file(path, asked(PASSPHRASE.decode()))
    assert (opened.identity, opened.passphrase) == (KEY, PASSPHRASE)
    for wrong in ("correct horsE", "correct horse ", "x"):
        with pytest.raises(InvalidValueError) as raised:
            keyfile.read(path, asked(wrong))
        assert str(raised.value) == f"key file {path}: wrong passphrase, or a damaged file"
        assert raised.value.__suppress_context__


def test_its_id_is_told_without_the_passphrase(tmp_path: Path) -> None:
    assert keyfile.id_of(stored(tmp_path, LOCKED), asked()) == ID


def test_whoever_cannot_ask_says_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="under a passphrase, and nobody to ask"):
        keyfile.read(stored(tmp_path, LOCKED))


def test_replacing_takes_a_passphrase_off_and_puts_it_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyfile, "lock", partial(lock, cost=CHEAP))
    path = stored(tmp_path, LOCKED)
    keyfile.replace(path, KEY, None)
    assert path.read_text() == HEX + "\n"
    keyfile.replace(path, KEY, b"another one")
    assert HEX not in path.read_text()
    assert keyfile.read(path, asked("another one")) == KEY


def test_nothing_of_the_key_is_in_the_file_or_a_repr(tmp_path: Path) -> None:
    opened = keyfile.open_file(stored(tmp_path, LOCKED), asked(PASSPHRASE.decode()))
    secrets = (bytes.fromhex(HEX), PASSPHRASE)
    forms = [form for raw in secrets for form in (raw, raw.hex().encode(), base64.b64encode(raw))]
    shown = LOCKED + repr(opened).encode() + repr(parse(LOCKED)).encode()
    assert not any(form in shown for form in forms)


# -- from elsewhere


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"v": 2}, "version 2, not 1"),
        ({"colonist": "claim"}, "does not know"),
        ({"kdf": "pbkdf2"}, "a member"),
        ({"cipher": "none"}, "a member"),
        ({"id": ID.upper()}, "a member"),
        ({"salt": ""}, "a member"),
        ({"salt": "A" * 32}, "a member"),
        ({"nonce": "00" * 11}, "a member"),
        ({"sealed": "00" * 47}, "a member"),
        ({"sealed": "00" * 49}, "a member"),
        ({"n": 1 << 14, "r": 0}, "n=16384, r=0"),
        ({"p": 0}, "p=0"),
        ({"p": -1}, "p=-1"),
        ({"n": 1 << 13}, "n=8192"),
        ({"n": 16385}, "n=16385"),
        ({"n": -(1 << 14)}, "n=-16384"),
        ({"n": 1 << 19}, "n=524288"),
        ({"n": 1 << 60}, "out of bounds"),
        ({"r": 1 << 30}, "out of bounds"),
        ({"p": 1 << 20}, "out of bounds"),
        ({"n": "16384"}, "neither"),
        ({"more": 1}, "neither"),
        ({"id": None}, "neither"),
    ],
)
def test_hostile_members_are_refused_before_any_work(
    tmp_path: Path, members: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locked_key, "_library", None)  # whoever gets there fails
    with pytest.raises(InvalidValueError, match=reason) as raised:
        keyfile.read(stored(tmp_path, changed(**members)), asked(PASSPHRASE.decode()))
    assert str(raised.value).startswith(f"key file {tmp_path}")


@pytest.mark.parametrize("content", [b"{", b"{}", b"{" * 16_000, b'{"a":' * 3_000, b"{\xff}"])
def test_what_only_looks_like_it_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InvalidValueError, match="neither a private key nor"):
        keyfile.read(stored(tmp_path, content), asked("x"))


def test_the_largest_bounds_are_256_mib_and_eight_times_the_default() -> None:
    for n, r, p in ((1 << 18, 8, 4), (1 << 17, 8, 8), (1 << 14, 1, 512), (1 << 14, 128, 4)):
        assert parse(changed(n=n, r=r, p=p)).n == n
    for n, r, p in ((1 << 18, 8, 5), (1 << 17, 8, 9), (1 << 14, 129, 1), (1 << 19, 8, 1)):
        with pytest.raises(InvalidValueError, match="out of bounds"):
            parse(changed(n=n, r=r, p=p))


@pytest.mark.parametrize(
    "members",
    [{"id": "0" * 64}, {"salt": "0" * 32}, {"nonce": "0" * 24}, {"p": 2}, {"sealed": "0" * 96}],
)
def test_every_member_is_authenticated(members: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError, match="wrong passphrase, or a damaged file"):
        unlock(parse(changed(**members)), PASSPHRASE)


@settings(max_examples=40)
@given(at=st.integers(0, len(LOCKED) - 2), char=st.integers(0x20, 0x7E))
def test_one_changed_character_never_gives_another_key(at: int, char: int) -> None:
    content = LOCKED[:at] + bytes([char]) + LOCKED[at + 1 :]
    try:
        found = unlock(parse(content), PASSPHRASE)
    except InvalidValueError:
        return
    assert found == KEY


def test_a_key_of_another_id_is_refused() -> None:
    """Made by somebody who knows the passphrase."""
    bare = msgspec.structs.replace(parse(LOCKED), id="ab" * 32, sealed="")
    cipher = locked_key._cipher(bare, PASSPHRASE)
    sealed = cipher.encrypt(bytes.fromhex(bare.nonce), bytes.fromhex(HEX), locked_key._header(bare))
    forged = msgspec.structs.replace(bare, sealed=sealed.hex())
    with pytest.raises(InvalidValueError, match="another id than it says"):
        unlock(parse(msgspec.json.encode(forged)), PASSPHRASE)


def test_a_machine_without_the_library_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *more: Any) -> Any:
        if name.startswith("cryptography"):
            raise ImportError(name)
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    for use in (lambda: unlock(parse(LOCKED), PASSPHRASE), lambda: lock(KEY, PASSPHRASE, CHEAP)):
        with pytest.raises(InvalidValueError, match=r"pip install 'colonist\[keys\]'") as raised:
            use()
        assert raised.value.__suppress_context__


def test_an_agent_starts_without_the_library() -> None:
    code = "import sys, colonist_agent.main; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_machine_without_the_memory_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(**_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(locked_key, "_library", lambda: (None, none_left))
    with pytest.raises(InvalidValueError, match="needs 16 MiB of memory"):
        unlock(parse(LOCKED), PASSPHRASE)
