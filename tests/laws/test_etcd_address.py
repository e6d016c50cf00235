"""What the address of an etcd store may say, and what is refused with which words."""

from pathlib import Path

import pytest

from colonist_client import secret_file
from colonist_server.store.etcd.address import PASSWORD_VARIABLE, Address, Files, parse
from colonist_server.store.etcd.client import _tls
from colonist_server.store.interface import StoreError
from colonist_server.store.opening import check_url, is_shared


def systemd(folder: Path) -> dict[str, str]:
    return {"CREDENTIALS_DIRECTORY": str(folder)}


def test_endpoints_have_a_port_and_keys_a_prefix() -> None:
    assert parse("etcd://a,b:2400,[::1]:99/x/y.z", {}) == Address(
        ("a:2379", "b:2400", "[::1]:99"), "x/y.z"
    )
    assert parse("etcd://a", {}).prefix == parse("etcd://a/", {}).prefix == "colonist"


def test_certificates_turn_tls_on() -> None:
    found = parse("etcd://a/p?ca=/c.pem&cert=/d.pem&key=/k.pem", {})
    assert found.is_tls
    assert found.files == Files(Path("/c.pem"), Path("/d.pem"), Path("/k.pem"))
    assert parse("etcd://a?tls=true", {}).is_tls
    assert not parse("etcd://a?tls=false", {}).is_tls


def test_the_password_comes_from_a_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "password"
    secret_file.write(file, b"from a file\n")
    for url, environment, password in (
        (f"etcd://a?user=u&password-file={file}", {}, "from a file"),
        ("etcd://a?user=u&password-file=password", systemd(tmp_path), "from a file"),
        ("etcd://a?user=u", {PASSWORD_VARIABLE: "from outside"}, "from outside"),
        ("etcd://a?user=u", {f"{PASSWORD_VARIABLE}_FILE": str(file)}, "from a file"),
        ("etcd://a", {PASSWORD_VARIABLE: "from outside"}, ""),
    ):
        assert parse(url, environment).password == password


def test_two_passwords_are_refused(tmp_path: Path) -> None:
    secret_file.write(tmp_path / "password", b"secret\n")
    name = str(tmp_path / "password")
    outside = {PASSWORD_VARIABLE: "secret"}
    for url, environment in (
        (f"etcd://a?user=u&password-file={name}", outside),
        (f"etcd://a?user=u&password-file={name}", {f"{PASSWORD_VARIABLE}_FILE": name}),
        ("etcd://a?user=u", outside | {f"{PASSWORD_VARIABLE}_FILE": name}),
    ):
        with pytest.raises(StoreError, match="both ") as caught:
            parse(url, environment)
        assert "secret" not in str(caught.value)


def test_a_password_that_others_can_read_is_refused(tmp_path: Path) -> None:
    secret_file.write(tmp_path / "password", b"secret\n")
    (tmp_path / "password").chmod(0o640)
    with pytest.raises(StoreError, match=r"mode 0640.*chmod 600"):
        parse(f"etcd://a?user=u&password-file={tmp_path / 'password'}", {})


def test_files_of_systemd_are_found_by_their_names(tmp_path: Path) -> None:
    for name in ("ca", "cert", "key"):
        secret_file.write(tmp_path / name, b"-----BEGIN x")
    found = parse("etcd://a/p?ca=ca&cert=cert&key=key", systemd(tmp_path))
    assert found.files == Files(tmp_path / "ca", tmp_path / "cert", tmp_path / "key")


def test_a_key_that_others_can_read_is_refused_before_it_is_used(tmp_path: Path) -> None:
    for name in ("cert", "key"):
        secret_file.write(tmp_path / name, b"-----BEGIN x")
    (tmp_path / "key").chmod(0o440)
    url = f"etcd://a/p?cert={tmp_path / 'cert'}&key={tmp_path / 'key'}"
    with pytest.raises(StoreError, match=r"key= of the store, file .*mode 0440.*chmod 600"):
        _tls(parse(url, {}))
    with pytest.raises(StoreError, match="cannot be used"):  # no certificate after all
        _tls(parse(url, systemd(tmp_path)))


def test_nothing_secret_is_shown() -> None:
    found = parse("etcd://a?user=u", {PASSWORD_VARIABLE: "hush"})
    assert "hush" not in f"{found!r} {found}"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("etcd://", "no HOST"),
        ("etcd://a b", "no HOST"),
        ("etcd://a:0", "no HOST"),
        ("etcd://a:65536", "no HOST"),
        ("etcd://a,,b", "no HOST"),
        ("etcd://u:secret@a", "a user does not stand before the hosts"),
        ("etcd://u:secret#x@a", "a user does not stand before the hosts"),
        ("etcd://u:top/secret@a", "a user does not stand before the hosts"),
        ("etcd://[::1", "no HOST"),
        ("etcd://a/p?user=u&secret", "not name=value"),
        ("etcd://a/" + "p" * 64 + "/" + "p" * 32, "at most 96"),
        ("etcd://a/p?cafile=x", "options of the store"),
        ("etcd://a/p?ca=x&ca=y", "twice"),
        ("etcd://a/p?ca", "not name=value"),
        ("etcd://a/p?cert=x", "needs both"),
        ("etcd://a/p?tls=maybe", "neither true nor false"),
        ("etcd://a/p?tls=false&ca=x", "and yet certificates"),
        ("etcd://a/p?quota=2GB", "no number of bytes"),
        ("etcd://a/a/b/c/d/e", "prefix"),
        ("etcd://a/%00", "prefix"),
        ("etcd://a/p#x", "is not like"),
        ("etcd://a?user=u&password-file=/nowhere/at/all", "/nowhere/at/all: No such file"),
    ],
)
def test_what_is_wrong_is_said(url: str, words: str) -> None:
    with pytest.raises(StoreError, match=words) as caught:
        check_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "sqlite:", "postgres://x", "/var/db"])
def test_an_unknown_store_is_told_what_there_is(url: str) -> None:
    with pytest.raises(StoreError, match="neither sqlite:PATH nor like etcd://"):
        check_url(url)


def test_an_etcd_is_shared_and_a_file_is_not() -> None:
    assert is_shared("etcd://a")
    assert not is_shared("sqlite:a")
