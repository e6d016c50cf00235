"""Pins on the disk."""

import logging
from pathlib import Path

import pytest

from colonist_client.pin_file import pinned
from colonist_protocol.errors import InvalidValueError

OLD, NEW = "ab" * 32, "cd" * 32


def test_without_an_id_nothing_is_pinned() -> None:
    assert pinned("", None) is None


def test_the_id_moves_on_in_the_file_and_is_found_there(tmp_path: Path) -> None:
    file = tmp_path / "server.id"
    pin = pinned(OLD, file)
    assert pin is not None
    assert (pin.id, file.exists()) == (OLD, False)
    pin.follow(OLD)
    assert not file.exists()
    pin.follow(NEW)
    assert file.read_text() == f"{NEW}\n"
    again = pinned(OLD, file)
    assert again is not None
    assert again.id == NEW
    assert [each.name for each in tmp_path.iterdir()] == ["server.id"]


def test_a_move_without_a_file_or_a_place_for_it_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for file in (None, tmp_path / "missing" / "server.id"):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            pin = pinned(OLD, file)
            assert pin is not None
            pin.follow(NEW)
        assert NEW in caplog.text
        assert pin.id == NEW


@pytest.mark.parametrize("content", [b"", b"ab", b"\xff", OLD.upper().encode()])
def test_a_file_that_holds_no_id_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "server.id"
    file.write_bytes(content)
    with pytest.raises(InvalidValueError, match=r"server\.id"):
        pinned(OLD, file)


def test_a_file_that_is_missing_needs_an_id_to_begin_with(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="is not there, and no server id"):
        pinned("", tmp_path / "server.id")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InvalidValueError, match="folder"):
        pinned(OLD, tmp_path / "folder")
