"""The lock files: exact, with hashes, without addresses, and no older than pyproject.toml."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = [ROOT / "requirements" / name for name in ("run.txt", "dev.txt")]
ENTRY = re.compile(r"^(?P<name>[a-z0-9-]+)==(?P<version>\S+)(?: ; .*?)? \\$")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}(?: \\)?$")


def versions(lock: Path) -> dict[str, str]:
    found = filter(None, map(ENTRY.match, lock.read_text().splitlines()))
    return {entry["name"]: entry["version"] for entry in found}


def project() -> dict[str, list[Requirement]]:
    """What pyproject.toml asks for: each extra and group, with references resolved by name."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lists = [table["project"]["dependencies"], table["build-system"]["requires"]]
    lists += table["project"]["optional-dependencies"].values()
    run = [Requirement(text) for entries in lists for text in entries]
    groups = table["dependency-groups"].values()
    dev = [Requirement(text) for entries in groups for text in entries if isinstance(text, str)]
    own = table["project"]["name"]
    return {"run.txt": [wish for wish in run if wish.name != own], "dev.txt": dev}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_line_is_an_exact_version_or_a_hash(lock: Path) -> None:
    for line in lock.read_text().splitlines():
        assert line.startswith("#") or ENTRY.match(line) or HASH.match(line), line


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_version_has_a_hash(lock: Path) -> None:
    lines = lock.read_text().splitlines()
    entries = [at for at, line in enumerate(lines) if ENTRY.match(line)]
    assert entries
    assert all(HASH.match(lines[at + 1]) for at in entries)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_no_addresses(lock: Path) -> None:
    assert "://" not in lock.read_text()
    assert not re.search(
        r"--(?!hash)|-i |-f ", re.sub(r"^#.*", "", lock.read_text(), flags=re.MULTILINE)
    )


def test_the_tools_lock_holds_the_programs_lock() -> None:
    run, dev = map(versions, LOCKS)
    assert run.items() <= dev.items()


@pytest.mark.parametrize("name", ["run.txt", "dev.txt"])
def test_locks_satisfy_pyproject(name: str) -> None:
    have = versions(ROOT / "requirements" / name)
    for wish in project()[name]:
        version = have.get(canonicalize_name(wish.name))
        assert version, f"{wish.name} is not locked: run scripts/lock"
        assert wish.specifier.contains(version, prereleases=True), f"{wish}: run scripts/lock"
