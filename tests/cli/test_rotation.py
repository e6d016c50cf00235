"""A key is changed without ever losing one, wherever it is interrupted."""

import dataclasses
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path

import pytest

from colonist_cli import rotation
from colonist_cli.exits import CliError, Exit
from colonist_cli.rotation import Rotation, rotate
from colonist_client import keyfile
from colonist_client.client import Client
from colonist_client.custody import Custody
from colonist_client.failure import ServerError
from colonist_client.http import HttpTransport
from colonist_client.locked_key import Cost, lock
from colonist_client.transport import NotSentError, UnreachableError
from colonist_protocol.identity import Identity
from tests.server.house import House, house
from tests.support.rooms import COLONY, key


class Crash(BaseException):
    """The program is gone."""


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncGenerator[House]:
    async with house(tmp_path / "server") as made:
        await made.populate()
        yield made


def of_ada(server: str, folder: Path) -> Rotation:
    folder.mkdir(exist_ok=True)
    path = folder / "ada.key"
    keyfile.write(path, key("ada"))
    return Rotation(
        server=server,
        path=path,
        change=lambda client, new: client.change_executor_id(COLONY, new.id),
        probe=lambda client, new: client.executor_by_id(COLONY, new.id),
    )


async def is_ada(made: House, identity: Identity) -> bool:
    async with Client(HttpTransport(made.url), identity) as client:
        try:
            return (await client.executor(COLONY, "ada")).executorid == identity.id
        except ServerError:
            return False


def every_key(folder: Path) -> set[Identity]:
    return {keyfile.read(path) for path in folder.iterdir()}


async def test_the_new_key_takes_the_place_of_the_old_one(lab: House, tmp_path: Path) -> None:
    wanted = of_ada(lab.url, tmp_path / "keys")
    new = await rotate(wanted)
    assert keyfile.read(wanted.path) == new
    assert keyfile.read(wanted.path.with_name("ada.key.old")) == key("ada")
    assert {path.name for path in wanted.path.parent.iterdir()} == {"ada.key", "ada.key.old"}
    assert {path.stat().st_mode & 0o777 for path in wanted.path.parent.iterdir()} == {0o600}
    assert await is_ada(lab, new)
    assert not await is_ada(lab, key("ada"))


@pytest.mark.parametrize("is_interrupted", [False, True])
async def test_a_key_under_a_passphrase_is_followed_by_one_under_the_same(
    lab: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_interrupted: bool
) -> None:
    plain = of_ada(lab.url, tmp_path / "keys")
    cheap = partial(lock, cost=Cost(n=1 << 14))
    monkeypatch.setattr(keyfile, "lock", cheap)
    keyfile.replace(plain.path, key("ada"), b"hush-hush")
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return "hush-hush"

    wanted = dataclasses.replace(plain, custody=Custody({}, ask))
    if is_interrupted:
        with monkeypatch.context() as patched:
            patched.setattr(rotation, "_swap", None)
            with pytest.raises(TypeError):
                await rotate(wanted)
        asked.clear()
    new = await rotate(wanted)
    assert asked == [f"Passphrase of {plain.path}: "]
    assert await is_ada(lab, new)
    for name, identity in (("ada.key", new), ("ada.key.old", key("ada"))):
        path = plain.path.with_name(name)
        assert identity.reveal() not in path.read_text()
        assert keyfile.read(path, Custody({}, ask)) == identity


async def test_a_draft_that_was_cut_off_was_never_sent(lab: House, tmp_path: Path) -> None:
    whole = lock(Identity(b"\7" * 32), b"hush-hush", Cost(n=1 << 14))
    for content in (b"ab", whole[:-1], whole[:100]):
        folder = tmp_path / str(len(content))
        wanted = of_ada(lab.url, folder)
        keyfile.replace(wanted.path, key("ben"), None)
        rotated = dataclasses.replace(wanted, change=_nothing)
        (folder / "ada.key.new").write_bytes(content)
        (folder / "ada.key.new").chmod(0o600)
        assert keyfile.read(wanted.path) == key("ben")
        assert await rotate(rotated) == keyfile.read(wanted.path)


async def _nothing(_client: Client, _new: Identity) -> None:
    pass


async def test_it_can_be_done_again(lab: House, tmp_path: Path) -> None:
    wanted = of_ada(lab.url, tmp_path / "keys")
    first = await rotate(wanted)
    second = await rotate(wanted)
    assert every_key(wanted.path.parent) == {first, second}
    assert await is_ada(lab, second)


@pytest.mark.parametrize("step", ["_send", "_swap", "replace", "last replace"])
async def test_a_crash_leaves_both_keys_and_the_next_run_goes_on(
    lab: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    wanted = of_ada(lab.url, tmp_path / "keys")
    drafts: list[Identity] = []

    def crash(*_: object) -> None:
        drafts.append(keyfile.read(wanted.path.with_name("ada.key.new")))
        raise Crash

    def crash_late(source: Path, target: Path) -> Path:
        if step == "replace" or source.name.endswith(".new"):
            crash()
        return replace(source, target)

    replace = Path.replace
    with monkeypatch.context() as patched:
        if step.startswith("_"):
            patched.setattr(rotation, step, crash)
        else:
            patched.setattr(Path, "replace", crash_late)
        with pytest.raises(Crash):
            await rotate(wanted)
    assert every_key(wanted.path.parent) >= {key("ada"), drafts[0]}
    assert await is_ada(lab, key("ada")) is (step == "_send")
    assert await rotate(wanted) == drafts[0]
    assert keyfile.read(wanted.path) == drafts[0]
    assert await is_ada(lab, drafts[0])
    assert every_key(wanted.path.parent) == {key("ada"), drafts[0]}


@pytest.mark.parametrize("has_effect", [True, False])
async def test_a_lost_reply_is_looked_into(lab: House, tmp_path: Path, has_effect: bool) -> None:
    plain = of_ada(lab.url, tmp_path / "keys")

    async def change(client: Client, new: Identity) -> None:
        if has_effect:
            await client.change_executor_id(COLONY, new.id)
        raise UnreachableError("no reply")

    wanted = Rotation(server=lab.url, path=plain.path, change=change, probe=plain.probe)
    if has_effect:
        assert await is_ada(lab, await rotate(wanted))
        return
    with pytest.raises(CliError, match="not known which key is in force") as told:
        await rotate(wanted)
    assert told.value.exit is Exit.UNREACHABLE
    assert len(every_key(plain.path.parent)) == 2
    assert await is_ada(lab, await rotate(plain))


async def test_a_refusal_changes_nothing_and_leaves_nothing(lab: House, tmp_path: Path) -> None:
    plain = of_ada(lab.url, tmp_path / "keys")
    wanted = Rotation(
        server=lab.url,
        path=plain.path,
        change=lambda client, _new: client.change_executor_id(COLONY, key("ben").id),
        probe=plain.probe,
    )
    with pytest.raises(ServerError):
        await rotate(wanted)
    assert every_key(plain.path.parent) == {key("ada")}
    assert await is_ada(lab, key("ada"))


async def test_a_draft_of_an_earlier_run_is_never_thrown_away(lab: House, tmp_path: Path) -> None:
    """It may be the key in force: a refusal of the old one says nothing about it."""
    wanted = of_ada(lab.url, tmp_path / "keys")
    draft = wanted.path.with_name("ada.key.new")
    keyfile.write(draft, key("stranger"))
    wanted.path.unlink()
    keyfile.write(wanted.path, key("nobody"))
    with pytest.raises(ServerError):
        await rotate(wanted)
    assert keyfile.read(draft) == key("stranger")


async def test_without_a_server_the_draft_waits_for_the_next_run(tmp_path: Path) -> None:
    wanted = of_ada("http://127.0.0.1:1", tmp_path / "keys")
    for _ in range(2):
        with pytest.raises(NotSentError):
            await rotate(wanted)
        assert len(every_key(wanted.path.parent)) == 2
    assert keyfile.read(wanted.path) == key("ada")


async def test_a_draft_that_was_not_written_to_its_end_is_made_anew(
    lab: House, tmp_path: Path
) -> None:
    wanted = of_ada(lab.url, tmp_path / "keys")
    draft = wanted.path.with_name("ada.key.new")
    draft.write_text("12ab")
    assert await is_ada(lab, await rotate(wanted))


async def test_two_runs_at_once_do_not_take_each_others_key(lab: House, tmp_path: Path) -> None:
    plain = of_ada(lab.url, tmp_path / "keys")

    async def change(client: Client, new: Identity) -> None:
        with pytest.raises(CliError, match="is being changed by another run"):
            await rotate(plain)
        await plain.change(client, new)

    wanted = Rotation(server=lab.url, path=plain.path, change=change, probe=plain.probe)
    new = await rotate(wanted)
    assert keyfile.read(plain.path) == new
    assert await is_ada(lab, new)


async def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    wanted = of_ada("http://127.0.0.1:1", tmp_path / "keys")
    wanted.path.with_name("ada.key.new").symlink_to(tmp_path / "none" / "x")
    with pytest.raises(CliError, match=r"File exists|No such file"):
        await rotate(wanted)
    assert keyfile.read(wanted.path) == key("ada")
