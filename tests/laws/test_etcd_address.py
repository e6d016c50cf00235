"""What the address of an etcd store may say, and what is refused with which words."""

from pathlib import Path

import pytest

from colonist_server.store.etcd.address import PASSWORD_VARIABLE, Address, Files, parse
from colonist_server.store.interface import StoreError
from colonist_server.store.opening import check_url, is_shared


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
    file.write_text("from a file\n")
    environment = {PASSWORD_VARIABLE: "from outside"}
    assert parse(f"etcd://a?user=u&password-file={file}", environment).password == "from a file"  # noqa: S105 - as written above
    assert parse("etcd://a?user=u", environment).password == "from outside"  # noqa: S105 - as written above
    assert parse("etcd://a", environment).password == ""


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
        ("etcd://a?user=u&password-file=/nowhere/at/all", "cannot be read"),
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
