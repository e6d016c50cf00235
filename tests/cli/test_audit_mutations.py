"""Every mutation of an audit file is found, and its place named; clean ones pass."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from colonist_cli.audit.verify import Report, verify
from tests.support.audit_files import Colony, colony, finished

MUTATIONS = 1_000
BATCHES = 10
MENDED = 200
SEEDS = 8


@cache
def subject(seed: int) -> Colony:
    """A colony, some of it newer than its last checkpoint."""
    made = colony(seed, steps=40)
    for _ in range(seed % 3):
        made.step()
    return made


@cache
def others(seed: int) -> tuple[bytes, ...]:
    """Of another colony, of a namesake elsewhere, of one with the same tag, and of later."""
    one = subject(seed)
    later = colony(seed, steps=40)
    for _ in range(40):
        later.step()
    later.checkpoint()
    return (
        colony(seed, steps=40, name="c-2").export(),
        colony(seed, steps=40, server="s-2").export(),
        colony(seed + 1, steps=40, tag=one.tag).export(),
        later.export(),
    )


@cache
def clean(seed: int) -> bytes:
    return subject(seed).export(kept=0.8)


def flip(data: bytes, draw: random.Random, _: int) -> bytes:
    at = draw.randrange(len(data))
    return data[:at] + bytes((data[at] ^ 1 << draw.randrange(8),)) + data[at + 1 :]


def delete(data: bytes, draw: random.Random, _: int) -> bytes:
    lines = data.splitlines(keepends=True)
    start = draw.randrange(len(lines))
    del lines[start : start + draw.choice((1, 1, 1, 2, 3, 10))]
    return b"".join(lines)


def reorder(data: bytes, draw: random.Random, _: int) -> bytes:
    lines = data.splitlines(keepends=True)
    line = lines.pop(draw.randrange(len(lines)))
    lines.insert(draw.randrange(len(lines) + 1), line)
    return b"".join(lines)


def splice(data: bytes, draw: random.Random, seed: int) -> bytes:
    """Lines, or whole chains, of another sound file instead of some here, or between them."""
    lines = data.splitlines(keepends=True)
    other = draw.choice(others(seed)).splitlines(keepends=True)
    if draw.random() < 0.5:
        start, size = draw.randrange(len(lines)), draw.choice((0, 1, 2, 5))
        at = draw.randrange(len(other))
        lines[start : start + size] = other[at : at + draw.choice((1, 2, 5))]
        return b"".join(lines)
    mine, foreign = chains(lines), chains(other)
    place = draw.choice(mine)
    lines[place[0] : place[1]] = other[slice(*draw.choice(foreign))]
    return b"".join(lines)


def truncate(data: bytes, draw: random.Random, _: int) -> bytes:
    if draw.random() < 0.5:
        return data[: draw.randrange(len(data))]
    lines = data.splitlines(keepends=True)
    return b"".join(lines[: draw.randrange(len(lines))])


def chains(lines: list[bytes]) -> list[tuple[int, int]]:
    """From and to which line each chain goes."""
    starts: dict[bytes, int] = {}
    for index, line in enumerate(lines):
        if line.startswith(b'{"v":1,"chain":'):
            starts.setdefault(line[:80], index)
    ends = [*list(starts.values())[1:], len(lines) - 1]
    return list(zip(starts.values(), ends, strict=True))


Mutate = Callable[[bytes, random.Random, int], bytes]
KINDS: tuple[Mutate, ...] = (flip, delete, reorder, splice, truncate)


def judge(path: Path, data: bytes, seed: int, step: int) -> Report:
    path.write_bytes(data)
    return verify(path, subject(seed).server_id, jobs=1, step=step)


def first_difference(one: bytes, other: bytes) -> int:
    """The number of the first line that differs."""
    pairs = zip(one.splitlines(keepends=True), other.splitlines(keepends=True), strict=False)
    for number, (mine, foreign) in enumerate(pairs, 1):
        if mine != foreign:
            return number
    return min(one.count(b"\n"), other.count(b"\n")) + 1


@pytest.mark.parametrize("batch", range(BATCHES))
def test_a_mutated_file_is_refused_and_the_place_named(batch: int, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for number in range(MUTATIONS // BATCHES):
        draw = random.Random(f"{batch} {number}")
        seed, kind = draw.randrange(SEEDS), KINDS[number % len(KINDS)]
        data = clean(seed)
        mutated = kind(data, draw, seed)
        while mutated == data:
            mutated = kind(data, draw, seed)
        report = judge(path, mutated, seed, draw.choice((500, 3_000, 1 << 20)))
        place = f"{kind.__name__} {batch}/{number}: {report}"
        assert not report.sound, place
        assert report.fault, place
        lines = mutated.count(b"\n") + 1
        assert max(1, first_difference(data, mutated) - 1) <= report.line <= lines, place
        assert 0 <= report.offset <= len(mutated), place


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_clean_file_passes(seed: int, tmp_path: Path) -> None:
    report = judge(tmp_path / "audit.jsonl", clean(seed), seed, 700)
    assert report.sound, report
    assert report.events == clean(seed).count(b'{"v":1,"chain":')
    assert report.members == ""


def test_clean_files_have_every_kind_of_line() -> None:
    """What the mutations are worth depends on it."""
    everything = b"".join(clean(seed) for seed in range(SEEDS))
    for what in (
        b'"removed"',
        b'"submitted"',
        b'"executor_id_changed"',
        b'"seal":""',
        b'"heads":[[',
    ):
        assert what in everything


@pytest.mark.parametrize("batch", range(BATCHES))
def test_who_mends_the_last_line_can_only_drop_requests_and_what_is_unproven(
    batch: int, tmp_path: Path
) -> None:
    """As one who knows how the file is made would: no count and no hash gives it away."""
    path = tmp_path / "audit.jsonl"
    refused = 0
    for number in range(MENDED // BATCHES):
        draw = random.Random(f"mended {batch} {number}")
        seed, kind = draw.randrange(SEEDS), KINDS[number % len(KINDS)]
        data = clean(seed)
        body = kind(data[: data.rindex(b'{"end":')], draw, seed)
        mended = finished([line for line in body.split(b"\n") if line])
        report = judge(path, mended, seed, draw.choice((500, 1 << 20)))
        if not report.sound:
            refused += 1
            continue
        genuine = set((subject(seed).export() + others(seed)[-1]).splitlines())
        foreign = [line for line in mended.splitlines()[1:-1] if line not in genuine]
        events = sum(line.startswith(b'{"v":1,"chain":') for line in foreign)
        assert events <= report.unproven, f"{kind.__name__} {batch}/{number}: {report}"
        assert not [line for line in foreign if line.startswith(b'{"v":1,"colony":')]
    assert refused > MENDED // BATCHES // 2


def without_all(lines: list[bytes]) -> list[bytes]:
    return lines[:1]


def without_chains(lines: list[bytes]) -> list[bytes]:
    return [line for line in lines if b'"chain":' not in line and b'"of":"event"' not in line]


def without_processes(lines: list[bytes]) -> list[bytes]:
    starts = [start for start, _ in chains([*lines, b""])]
    return lines[: starts[1]]


def without_the_colony(lines: list[bytes]) -> list[bytes]:
    (start, end), *_ = chains([*lines, b""])
    return lines[:start] + lines[end:]


def without_the_last_chain(lines: list[bytes]) -> list[bytes]:
    return lines[: chains([*lines, b""])[-1][0]]


def without_checkpoints(lines: list[bytes]) -> list[bytes]:
    return [lines[0], *lines[chains([*lines, b""])[0][0] :]]


def without_the_first_checkpoint(lines: list[bytes]) -> list[bytes]:
    return [lines[0], *lines[3:]]


def without_the_last_signature(lines: list[bytes]) -> list[bytes]:
    first = chains([*lines, b""])[0][0]
    return lines[: first - 1] + lines[first:]


def without_the_last_checkpoint_and_chains(lines: list[bytes]) -> list[bytes]:
    return without_chains(lines)[:-2]


CUTS: tuple[Callable[[list[bytes]], list[bytes]], ...] = (
    without_all,
    without_chains,
    without_processes,
    without_the_colony,
    without_the_last_chain,
    without_checkpoints,
    without_the_first_checkpoint,
    without_the_last_signature,
    without_the_last_checkpoint_and_chains,
)


@pytest.mark.parametrize("cut", CUTS)
def test_what_is_cut_off_is_missed_though_the_last_line_fits(
    cut: Callable[[list[bytes]], list[bytes]], tmp_path: Path
) -> None:
    lines = colony(1, steps=40).lines()
    fewer = cut(lines)
    assert 0 < len(fewer) < len(lines)
    report = judge(tmp_path / "audit.jsonl", finished(fewer), 1, 3_000)
    assert not report.sound
    assert 0 < report.line <= len(fewer) + 1


def test_a_file_cut_back_to_a_checkpoint_says_so_little_as_it_proves(tmp_path: Path) -> None:
    """What came after it cannot be missed: what is left is what there was then."""
    made = colony(1, steps=40)
    events, last = sum(map(len, made.chains.values())), len(made.checkpoints)
    then = finished(made.lines())
    for _ in range(3):
        made.submit()
    made.checkpoint()
    kept = set(then.splitlines())
    older = [made.lines()[0], *(line for line in made.lines()[1:] if line in kept)]
    report = judge(tmp_path / "audit.jsonl", finished(older), 1, 3_000)
    assert (report.sound, report.last_checkpoint, report.events) == (True, last, events)
    later = [line for line in made.lines() if line not in made.checkpoints[-1]]
    report = judge(tmp_path / "audit.jsonl", finished(later), 1, 3_000)
    assert (report.sound, report.last_checkpoint, report.unproven) == (True, last, 3)


@pytest.mark.parametrize("batch", range(BATCHES))
def test_a_change_of_what_is_signed_is_named_where_it_is(batch: int, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for number in range(MENDED // BATCHES):
        draw = random.Random(f"place {batch} {number}")
        seed = draw.randrange(SEEDS)
        lines = subject(seed).lines()
        tail = set(lines) - set(colony(seed, steps=40).lines())
        at = draw.choice([at for at, line in enumerate(lines) if at and line not in tail])
        lines[at] = flip(lines[at], draw, seed)
        body = finished(lines)
        report = judge(path, body, seed, draw.choice((500, 1 << 20)))
        assert not report.sound
        near = 3 if body.count(b"\n") == len(lines) + 1 else 10
        assert at <= report.line <= at + near, f"{batch}/{number}: line {at + 1}: {report}"
