"""The view of what changes seldom: colonies, their executors, users and functions.

Part of the view and fed with it, newest wins. What is foreign to every colony that is known is
passed over: its colony has been removed.
"""

from __future__ import annotations

from typing import Final, Protocol

from colonist_server.repo import keys
from colonist_server.repo.known_ids import KnownIds
from colonist_server.repo.nouns import Colony, Executor, Function, User
from colonist_server.repo.records import (
    ExecutorRecord,
    all_ids,
    decode_colony,
    decode_executor,
    decode_function,
    decode_user,
    function_size,
)
from colonist_server.store.interface import Revision

_TAG: Final = slice(2, 2 + keys.TAG_BYTES)
_NAME: Final = slice(3 + keys.TAG_BYTES, None)


class Holder(Protocol):
    """Who keeps what belongs to colonies, and tells of changes: the view."""

    def colony_changed(self, colony: Colony) -> None:
        """A colony was founded, paused, resumed or removed."""
        ...

    def executor_changed(
        self, colony: Colony, executor: Executor, before: ExecutorRecord | None
    ) -> None:
        """An executor was added or changed; `before` is None for a new one."""
        ...

    def user_changed(self, colony: Colony, user: User) -> None:
        """A user was added, or changed its id."""
        ...

    def empty(self, colony: Colony) -> None:
        """Forget the processes and workflows of a colony that is gone."""
        ...


class Colonies:
    """Every colony, by its name, its tag, and the ids of its owner and members, former ones too."""

    __slots__ = ("_holder", "by_name", "by_tag", "known")

    def __init__(self, holder: Holder) -> None:
        self._holder = holder
        self.by_name: dict[str, Colony] = {}
        self.by_tag: dict[bytes, Colony] = {}
        self.known = KnownIds()

    def apply_colony(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        """A colony was written; without a value it is gone."""
        colony = self.by_tag.get(key[_TAG])
        if colony is not None and colony.revision >= revision:
            return
        if value is None:
            if colony is not None:
                self._drop(colony)
            return
        record = decode_colony(value)
        if colony is None:
            colony = self.by_tag[key[_TAG]] = Colony(key, record, revision)
            self.by_name[record.name] = colony
        else:
            owner, colony.record = colony.record.owner, record
            colony.revision = revision
            self._note(colony, owner)
        self._note(colony, record.owner)
        self._holder.colony_changed(colony)

    def _drop(self, colony: Colony) -> None:
        del self.by_tag[colony.tag]
        if self.by_name.get(colony.record.name) is colony:
            del self.by_name[colony.record.name]
        for id in (colony.record.owner, *colony.members, *colony.former):
            self.known.discard(id, colony.tag)
        colony.is_gone = True
        self._holder.empty(colony)
        self._holder.colony_changed(colony)

    def apply_executor(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        """An executor was written; without a value it is gone."""
        colony = self.by_tag.get(key[_TAG])
        if colony is None:
            return
        name = key[_NAME].decode()
        executor = colony.executors.get(name)
        if executor is not None and executor.revision >= revision:
            return
        if executor is not None:
            self._delist(colony, executor)
        if value is None:
            colony.executors.pop(name, None)
            return
        record = decode_executor(value)
        before = executor.record if executor is not None else None
        if executor is None:
            executor = colony.executors[name] = Executor(key, name, record, revision)
        else:
            executor.record = record
            executor.revision = revision
        self._enlist(colony, executor)
        self._holder.executor_changed(colony, executor, before)

    def apply_user(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        """A user was written; without a value it is gone."""
        colony = self.by_tag.get(key[_TAG])
        if colony is None:
            return
        name = key[_NAME].decode()
        user = colony.users.get(name)
        if user is not None and user.revision >= revision:
            return
        if user is not None:
            del colony.users[name]
            self._delist(colony, user)
        if value is not None:
            user = colony.users[name] = User(key, name, decode_user(value), revision)
            self._enlist(colony, user)
            self._holder.user_changed(colony, user)

    def _enlist(self, colony: Colony, member: Executor | User) -> None:
        colony.enlist(member)
        self._note(colony, *all_ids(member.record))

    def _delist(self, colony: Colony, member: Executor | User) -> None:
        colony.delist(member)
        self._note(colony, *all_ids(member.record))

    def _note(self, colony: Colony, *ids: str) -> None:
        """Know anew whether a colony knows them: two may hold one id while the watch lags."""
        for id in ids:
            if colony.record.owner == id or colony.holder(id) is not None:
                self.known.add(id, colony.tag)
            else:
                self.known.discard(id, colony.tag)

    def apply_function(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        """A function was written; without a value it is gone."""
        colony = self.by_tag.get(key[_TAG])
        if colony is None:
            return
        function = colony.functions.get(key)
        if function is not None and function.revision >= revision:
            return
        if value is None:
            if function is not None:
                del colony.functions[key]
                colony.count_functions(function.record.executor, -1, -function.size)
            return
        record = decode_function(value)
        size = function_size(record)
        if function is None:
            colony.functions[key] = Function(key, record, revision, record.tally, size)
            colony.count_functions(record.executor, 1, size)
        else:
            colony.count_functions(record.executor, 0, size - function.size)
            function.size = size
            function.record = record
            function.revision = revision
