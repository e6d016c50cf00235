"""HTTP/2 and gRPC as bytes: what is written is read again, however the bytes are cut."""

from __future__ import annotations

import itertools

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colonist_server.store.etcd import frames
from colonist_server.store.etcd.frames import CallError, Frame, Kind, ProtocolError

payloads = st.binary(max_size=300)
numbers = st.integers(0, 2**31 - 1)
some_frames = st.lists(
    st.builds(Frame, st.sampled_from(Kind), st.integers(0, 255), numbers, payloads), max_size=8
)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(ends)] or [data]


places = st.lists(st.integers(0, 1 << 20), max_size=12)


@given(some_frames, places)
def test_frames_are_the_same_however_their_bytes_are_cut(
    wanted: list[Frame], at: list[int]
) -> None:
    data = b"".join(frames.frame(Kind(f.kind), f.flags, f.stream, f.payload) for f in wanted)
    reader = frames.Reader()
    assert [each for part in cut(data, at) for each in reader.feed(part)] == wanted


@given(st.lists(st.binary(max_size=40), max_size=8), places)
def test_messages_are_the_same_however_their_bytes_are_cut(
    wanted: list[bytes], at: list[int]
) -> None:
    joined = frames.Messages()
    data = b"".join(map(frames.message, wanted))
    assert [each for part in cut(data, at) for each in joined.feed(part)] == wanted
    assert not joined.is_cut


def test_the_bit_before_the_number_of_a_stream_means_nothing() -> None:
    assert frames.Reader().feed(bytes(5) + b"\x80\0\0\x07") == [Frame(Kind.DATA, 0, 7, b"")]


def test_a_part_of_a_message_is_known_as_one() -> None:
    joined = frames.Messages()
    assert joined.feed(frames.message(b"a") + b"\0") == [b"a"]
    assert joined.is_cut


@pytest.mark.parametrize("head", [b"\x01\0\0\0\x01", b"\0\xff\xff\xff\xff"])
def test_messages_packed_or_endless_are_refused(head: bytes) -> None:
    with pytest.raises(CallError, match="packed"):
        frames.Messages().feed(head)


def test_a_frame_larger_than_agreed_is_refused_before_it_is_there() -> None:
    with pytest.raises(ProtocolError, match="16385"):
        frames.Reader().feed(b"\0\x40\x01" + bytes(6))


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("size", [1, 126, 127, 128, 254, 255, 256, 383, 16_510, 16_511])
def test_headers_that_we_write_are_hpack(size: int, scheme: str) -> None:
    value = "v" * size
    block = frames.request_headers(scheme, "host:1", "/s/M", (("token", value),))
    assert [tuple(pair) for pair in hpack.Decoder().decode(block)] == [
        (":method", "POST"),
        (":scheme", scheme),
        (":path", "/s/M"),
        (":authority", "host:1"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("token", value),
    ]


@given(st.lists(st.tuples(st.sampled_from(["a", "grpc-message"]), st.text("ab%é", max_size=9))))
def test_headers_of_an_encoder_without_a_table_are_read(wanted: list[tuple[str, str]]) -> None:
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in wanted]
    assert frames.read_headers(encoder.encode(pairs)) == dict(wanted)


def test_headers_that_use_a_table_are_refused() -> None:
    with pytest.raises(ProtocolError):
        frames.read_headers(b"\xbe")  # the first of the dynamic table
    with pytest.raises(ProtocolError):
        frames.read_headers(b"\x3f\xe1\x1f")  # a table of 4096 bytes


@given(st.binary(max_size=60))
def test_headers_of_any_bytes_are_read_or_refused(block: bytes) -> None:
    try:
        frames.read_headers(block)
    except ProtocolError:
        return


@pytest.mark.parametrize(
    ("headers", "code", "words"),
    [
        ({"grpc-status": "11", "grpc-message": "50%25 %C3%A9 %zz"}, 11, "50% é %zz"),
        ({"grpc-status": "7"}, 7, ""),
        ({"grpc-status": "7", ":status": "503"}, 7, ""),
        ({}, 2, "without a status"),
        ({":status": "503"}, 2, "HTTP status 503"),
        ({"grpc-status": "²"}, 2, "without a status"),
        ({"grpc-status": "-1"}, 2, "without a status"),
        ({"grpc-status": "99999999999999"}, 2, "without a status"),
    ],
)
def test_a_status_is_told(headers: dict[str, str], code: int, words: str) -> None:
    error = frames.status(headers)
    assert error is not None
    assert (error.code, words in error.details) == (code, True)


def test_no_error_is_none() -> None:
    assert frames.status({"grpc-status": "0"}) is None


@given(payloads, st.integers(0, 255), st.booleans())
def test_padding_is_taken_off(payload: bytes, padding: int, has_priority: bool) -> None:
    head = bytes([padding]) + (bytes(5) if has_priority else b"")
    flags = frames.PADDED | (frames.PRIORITY if has_priority else 0)
    got = Frame(Kind.HEADERS, flags, 1, head + payload + bytes(padding))
    assert frames.unpadded(got) == payload


def test_more_padding_than_frame_is_refused() -> None:
    with pytest.raises(ProtocolError, match="padding"):
        frames.unpadded(Frame(Kind.DATA, frames.PADDED, 1, b"\x05abc"))


@given(payloads, st.integers(0, 255), st.sampled_from([Kind.DATA, Kind.HEADERS]))
def test_any_padding_is_taken_off_or_refused(payload: bytes, flags: int, kind: Kind) -> None:
    try:
        assert len(frames.unpadded(Frame(kind, flags, 1, payload))) <= len(payload)
    except ProtocolError:
        return


@pytest.mark.parametrize(
    ("number", "value"), [(4, 2**31), (5, 16_383), (5, 2**24)], ids=["window", "short", "long"]
)
def test_settings_out_of_range_are_refused(number: int, value: int) -> None:
    payload = number.to_bytes(2, "big") + value.to_bytes(4, "big")
    with pytest.raises(ProtocolError):
        list(frames.read_settings(payload))
    with pytest.raises(ProtocolError, match="odd"):
        list(frames.read_settings(payload[:-1]))
