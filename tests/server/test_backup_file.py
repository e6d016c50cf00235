"""Backup files: whole or refused, whatever happened to them."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from colonist_server.archive.interface import Row
from colonist_server.backup import form
from colonist_server.backup.form import About, BackupError, Kind
from colonist_server.backup.reader import BackupReader
from colonist_server.backup.writer import BackupWriter
from colonist_server.store.interface import Item

ABOUT = About(form.FORMAT, 1, 1_800_000_000_000_000_000, 7, "0.1.0", "archive-1")
ITEMS = [Item(b"k%03d" % n, b"v" * n, n + 1, 2 * n + 1) for n in range(40)]
ROWS = [Row(b"r%03d" % n, b"w" * n) for n in range(30)]


def write(path: Path, *, may_replace: bool = False) -> Path:
    writer = BackupWriter(path, ABOUT, may_replace=may_replace)
    try:
        for start in range(0, len(ITEMS), 15):
            writer.add_items(ITEMS[start : start + 15])
        for start in range(0, len(ROWS), 15):
            writer.add_rows(ROWS[start : start + 15])
        writer.finish()
    finally:
        writer.close()
    return path


def test_what_was_written_is_read(tmp_path: Path) -> None:
    reader = BackupReader(write(tmp_path / "b"))
    assert reader.about == ABOUT
    assert [item for page in reader.items() for item in page] == ITEMS
    assert [row for page in reader.rows() for row in page] == ROWS
    end = reader.check()
    assert (end.items, end.rows) == (len(ITEMS), len(ROWS))


def test_file_is_for_its_owner_only_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    path = write(tmp_path / "b")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_file_that_is_there_is_not_replaced_unless_told(tmp_path: Path) -> None:
    path = tmp_path / "b"
    path.write_text("mine")
    with pytest.raises(BackupError, match="--force"):
        write(path)
    assert path.read_text() == "mine"
    write(path, may_replace=True)
    BackupReader(path).check()
    assert list(tmp_path.iterdir()) == [path]


def link(path: Path) -> None:
    path.symlink_to("/dev/null")


@pytest.mark.parametrize("plant", [os.mkfifo, Path.mkdir, link])
def test_only_a_file_is_replaced(tmp_path: Path, plant: Callable[[Path], None]) -> None:
    path = tmp_path / "b"
    plant(path)
    kind = stat.S_IFMT(path.lstat().st_mode)
    for may_replace in (True, False):
        with pytest.raises(BackupError, match="no regular file"):
            write(path, may_replace=may_replace)
    assert [stat.S_IFMT(each.lstat().st_mode) for each in tmp_path.iterdir()] == [kind]


def test_file_that_came_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "b"
    writer = BackupWriter(path, ABOUT, may_replace=False)
    path.write_text("mine")
    with pytest.raises(BackupError, match="--force"):
        writer.finish()
    writer.close()
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


def test_backup_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    writer = BackupWriter(tmp_path / "b", ABOUT, may_replace=False)
    writer.add_items(ITEMS)
    writer.close()
    assert list(tmp_path.iterdir()) == []


def test_every_cut_is_found(tmp_path: Path) -> None:
    data = write(tmp_path / "b").read_bytes()
    path = tmp_path / "cut"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(BackupError, match=r"not a backup|ends at byte \d+"):
            BackupReader(path).check()


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    data = write(tmp_path / "b").read_bytes()
    path = tmp_path / "flipped"
    for at in range(len(data)):
        flipped = bytearray(data)
        flipped[at] ^= 1 << at % 8
        path.write_bytes(flipped)
        with pytest.raises(BackupError) as told:
            BackupReader(path).check()
        text = str(told.value)
        assert str(path) in text
        assert "not a backup" in text if at < len(form.MAGIC) else " byte " in text


def test_blocks_out_of_place_are_found(tmp_path: Path, seed: int) -> None:
    """Each block is whole by itself: left out, twice, swapped, or of another file."""
    data = write(tmp_path / "b").read_bytes()
    blocks = _blocks(data)
    path = tmp_path / "spliced"
    rng = random.Random(seed)
    for _ in range(200):
        changed = list(blocks)
        at, other = rng.randrange(len(blocks)), rng.randrange(len(blocks))
        match rng.randrange(4):
            case 0:
                del changed[at]
            case 1:
                changed.insert(other, changed[at])
            case 2:
                changed[at], changed[other] = changed[other], changed[at]
            case _:
                changed.insert(at, form.pack(Kind.ITEMS, [Item(b"k9", b"", 1, 1)]))
        spliced = form.MAGIC + b"".join(changed)
        if spliced == data:
            continue
        path.write_bytes(spliced)
        with pytest.raises(BackupError):
            BackupReader(path).check()


def test_something_behind_the_trailer_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "b")
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(BackupError, match="follows its trailer"):
        BackupReader(path).check()


def test_backup_of_a_later_form_says_who_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "b"
    later = About(form.FORMAT + 1, 9, 1, 1, "9.9.9")
    path.write_bytes(form.MAGIC + form.pack(Kind.ABOUT, later))
    with pytest.raises(BackupError, match=r"9\.9\.9"):
        BackupReader(path)


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0", b"\0" * 5_000])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "b"
    path.write_bytes(content)
    with pytest.raises(BackupError, match="not a backup"):
        BackupReader(path)


def test_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="No such file"):
        BackupReader(tmp_path / "b")


def _blocks(data: bytes) -> list[bytes]:
    blocks: list[bytes] = []
    at = len(form.MAGIC)
    while at < len(data):
        size = form.HEAD_BYTES + form.read_head(data[at : at + form.HEAD_BYTES]).stored
        blocks.append(data[at : at + size])
        at += size
    return blocks
