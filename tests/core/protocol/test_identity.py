import contextlib
import subprocess
import sys

import crypto
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colonist_protocol import curve_libsecp, curve_pure, identity
from colonist_protocol.errors import InvalidValueError, KeyFormError, SignatureError
from colonist_protocol.identity import ORDER, Identity

CURVES = (curve_libsecp, curve_pure)
scalars = st.integers(1, ORDER - 1).map(lambda number: number.to_bytes(32, "big"))
digests = st.binary(min_size=32, max_size=32)
PYCOLONIES = crypto.Crypto()


@given(scalars, digests)
def test_both_backends_sign_and_recover_alike(private, digest):
    signers = [curve.Signer(private) for curve in CURVES]
    assert signers[0].public == signers[1].public
    signatures = {signer.sign(digest) for signer in signers}
    assert len(signatures) == 1
    signature = signatures.pop()
    assert {curve.recover(digest, signature) for curve in CURVES} == {signers[0].public}
    assert identity.parse_signature(signature.hex()) == signature


@given(scalars, digests, st.integers(0, 64), st.integers(0, 255))
def test_both_backends_agree_on_what_nobody_signed(private, digest, at, byte):
    changed = bytearray(curve_libsecp.Signer(private).sign(digest))
    changed[at] = byte
    assert len({recovered(curve, digest, bytes(changed)) for curve in CURVES}) == 1


def recovered(curve, digest, signature):
    try:
        return curve.recover(digest, signature)
    except ValueError:
        return None


ONE = bytes(31) + b"\1"
TOP = ORDER.to_bytes(32, "big")


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        ONE + ONE,
        ONE + ONE + b"\0\0",
        ONE + ONE + b"\4",
        bytes(32) + ONE + b"\0",
        ONE + bytes(32) + b"\0",
        TOP + ONE + b"\0",
        ONE + TOP + b"\0",
    ],
)
@pytest.mark.parametrize("curve", CURVES)
def test_a_backend_refuses_what_is_out_of_range(curve, signature):
    with pytest.raises(ValueError, match=r".+"):
        curve.recover(bytes(32), signature)


@settings(max_examples=20)
@given(scalars, st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_pycolonies_signs_the_same_bytes(private, text):
    key = Identity(private)
    assert PYCOLONIES.id(private.hex()) == key.id
    signature = PYCOLONIES.sign(text, private.hex())
    assert signature == key.sign(text.encode())
    assert identity.recover(text.encode(), signature) == key.id


def test_a_key_made_by_pycolonies_is_a_key():
    private = PYCOLONIES.prvkey()
    assert Identity.from_hex(private).id == PYCOLONIES.id(private)


@given(st.text(max_size=140) | st.text("0123456789abcdefABCDEF ", min_size=130, max_size=130))
def test_any_text_for_a_signature_causes_no_other_error(text):
    with contextlib.suppress(SignatureError):
        identity.recover(b"x", text)


def test_a_key_is_shown_by_its_id_only():
    key = Identity.from_entropy(bytes(32))
    assert repr(key) == f"Identity({key.id})"
    assert key.reveal() not in repr(key)
    assert identity.is_id(key.id)


def test_keys_are_equal_by_what_they_hold():
    one, same, other = (
        Identity(ONE),
        Identity.from_hex(f" {ONE.hex()}\n"),
        Identity(bytes(31) + b"\2"),
    )
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert one != ONE


def test_upper_case_keys_are_read():
    assert Identity.from_hex("AB" * 32) == Identity.from_hex("ab" * 32)


@pytest.mark.parametrize("private", [b"", ONE[1:], b"\0" + ONE, bytes(32), TOP, b"\xff" * 32])
def test_bytes_that_are_no_scalar_are_refused(private):
    with pytest.raises(KeyFormError):
        Identity(private)


def test_a_refusal_does_not_repeat_the_key():
    with pytest.raises(KeyFormError) as caught:
        Identity.from_hex("secret" * 11)
    assert "secret" not in str(caught.value)


def test_a_key_needs_enough_entropy():
    with pytest.raises(InvalidValueError):
        Identity.from_entropy(bytes(31))


def test_without_coincurve_the_pure_backend_serves():
    code = """
import sys
sys.modules["coincurve"] = None  # what makes its import fail
from colonist_protocol import identity
assert identity.curve.__name__.endswith("curve_pure"), identity.curve
key = identity.Identity(bytes(31) + b"\\1")
assert identity.recover(b"x", key.sign(b"x")) == key.id
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_with_coincurve_it_is_not_used():
    assert identity.curve is curve_libsecp
