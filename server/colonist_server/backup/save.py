"""Saving a store, and then its archive, in a file."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import NamedTuple

from colonist_server.backup import form
from colonist_server.backup.form import About, BackupError
from colonist_server.backup.origin import Marks, Readable, ReadableArchive, what_lasts
from colonist_server.backup.writer import BackupWriter
from colonist_server.repo.records import SCHEMA
from colonist_server.store.interface import Range, Revision


class Saved(NamedTuple):
    """What a file holds now."""

    revision: Revision
    items: int
    rows: int
    bytes: int


class Destination(NamedTuple):
    """Where a backup goes; `version` is that of Colonist, `made_ns` the time of now."""

    path: Path
    version: str
    made_ns: int
    may_replace: bool = False


async def save(store: Readable, archive: ReadableArchive | None, destination: Destination) -> Saved:
    """Save a store at one revision, then its archive: what moves between them is in one or both.

    Raises `BackupError`, `StoreError`, `OSError`; then there is no file, or the one before.
    """
    marks = Marks()
    async with aclosing(store.snapshot()) as pages:
        first = await anext(pages)
        about = _about(first, archive, destination)
        path, is_free = destination.path, destination.may_replace
        writer = await asyncio.to_thread(BackupWriter, path, about, may_replace=is_free)
        try:
            page = first
            while True:
                marks.check(page.items)
                await asyncio.to_thread(writer.add_items, what_lasts(page.items))
                if not page.more:
                    break
                page = await anext(pages)
            _check_marks(marks, about)
            await _save_archive(archive, writer)
            end = await asyncio.to_thread(writer.finish)
        finally:
            await asyncio.to_thread(writer.close)
    size = destination.path.stat().st_size
    return Saved(about.revision, end.items, end.rows, size)


def _check_marks(marks: Marks, about: About) -> None:
    if not marks.is_ours:
        raise BackupError("there is no Colonist state in that store: nothing was saved")
    if marks.archive and (not about.archive or about.archive.encode() not in marks.archive):
        raise BackupError(
            "the history of that store is in an archive: name it with --archive"
            + (", this is another" if about.archive else "")
        )


def _about(first: Range, archive: ReadableArchive | None, destination: Destination) -> About:
    return About(
        format=form.FORMAT,
        schema=SCHEMA,
        made_ns=destination.made_ns,
        revision=first.revision,
        version=destination.version,
        archive=archive.identity if archive is not None else "",
    )


async def _save_archive(archive: ReadableArchive | None, writer: BackupWriter) -> None:
    if archive is not None:
        async with aclosing(archive.snapshot()) as pages:
            async for rows in pages:
                await asyncio.to_thread(writer.add_rows, rows)
