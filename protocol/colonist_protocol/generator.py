"""Generators, which collect arguments for workflows: COLONIES-RPC sections 2.8, 3.10 and 4.8."""

from __future__ import annotations

from typing import Final

import msgspec

from colonist_protocol import codec
from colonist_protocol.errors import InvalidValueError, TooLargeError
from colonist_protocol.message import Int, Message
from colonist_protocol.times import UNSET

MAX_LIST: Final = 1000
MAX_TRIGGER: Final = 10_000
MAX_TIMEOUT_S: Final = 100 * 365 * 86_400
MAX_SPEC_BYTES: Final = 262_144
MAX_ARGUMENT_BYTES: Final = 65_536
MAX_FIRING_BYTES: Final = 524_288
"""What the arguments of one firing may take together, as JSON: they become part of one value."""
MAX_COPIES_BYTES: Final = 8_388_608
"""What they may take in all roots of the workflow together, each of which gets them all."""
MIN_ARGUMENT_BYTES: Final = 16
"""A generator at which an argument could not even have so many makes no sense."""
MAX_WAITING: Final = 100_000
"""Arguments that may wait at one generator."""
MAX_GENERATORS: Final = 10_000
"""Generators of one colony."""
CHECKER_PERIOD_MS: Final = 1000
"""What the reference answers; nothing is checked periodically here."""


class Generator(msgspec.Struct, frozen=True, kw_only=True):
    """A generator; `workflowspec` is a text that holds the JSON of a workflow spec.

    `trigger` counts arguments, `timeout` seconds since the oldest of them came; 0 or less: never.
    `disabledreason`, ours: why it starts nothing any more.
    """

    generatorid: str = ""
    initiatorid: str = ""
    initiatorname: str = ""
    colonyname: str = ""
    name: str = ""
    workflowspec: str = ""
    trigger: Int = 0
    timeout: Int = 0
    firstpack: str = UNSET
    lastrun: str = UNSET
    queuesize: Int = 0
    checkerperiod: Int = 0
    disabledreason: str | msgspec.UnsetType = msgspec.UNSET


class AddGenerator(Message, tag="addgeneratormsg"):
    """Make a generator, which starts a workflow for every `trigger` arguments, or in time."""

    generator: Generator


class GetGenerator(Message, tag="getgeneratormsg"):
    """Read one generator."""

    generatorid: str = ""


class ResolveGenerator(Message, tag="resolvegeneratormsg"):
    """Read one generator by its name."""

    colonyname: str = ""
    generatorname: str = ""


class GetGenerators(Message, tag="getgeneratorsmsg"):
    """List generators, oldest first."""

    colonyname: str = ""
    count: Int = 0


class PackGenerator(Message, tag="packgeneratormsg"):
    """Give a generator one argument; sent twice, it is there twice."""

    generatorid: str = ""
    arg: str = ""


class RemoveGenerator(Message, tag="removegeneratormsg"):
    """Remove a generator and the arguments that wait at it; `all` means nothing."""

    generatorid: str = ""
    all: bool = False


def check(generator: Generator) -> None:
    """Raise `InvalidValueError` or `TooLargeError` for numbers that make no sense (P1)."""
    if not 1 <= generator.trigger <= MAX_TRIGGER:
        raise InvalidValueError(f"Generator trigger must be 1 to {MAX_TRIGGER}")
    if generator.timeout > MAX_TIMEOUT_S:
        raise InvalidValueError(f"Generator timeout must be at most {MAX_TIMEOUT_S} seconds")
    if len(generator.workflowspec.encode()) > MAX_SPEC_BYTES:
        raise TooLargeError(f"a workflowspec of more than {MAX_SPEC_BYTES} bytes")


def largest_argument(trigger: int, roots: int) -> int:
    """Bytes that an argument may have, as JSON, so that so many of them fit one firing.

    Raises `InvalidValueError` where that would be too few to be of use.
    """
    firing = min(MAX_FIRING_BYTES, MAX_COPIES_BYTES // max(1, roots))
    largest = min(MAX_ARGUMENT_BYTES, firing // trigger)
    if largest < MIN_ARGUMENT_BYTES:
        raise InvalidValueError(
            f"{trigger} arguments for each of {roots} nodes without dependencies are too many"
        )
    return largest


def packed(arg: str, largest: int) -> bytes:
    """An argument as the JSON that is stored. Raises `TooLargeError`."""
    text = codec.encode(arg)
    if len(text) > largest:
        raise TooLargeError(f"an argument of {len(text)} bytes: {largest} at most here")
    return text


MESSAGES: Final = (
    AddGenerator,
    GetGenerator,
    ResolveGenerator,
    GetGenerators,
    PackGenerator,
    RemoveGenerator,
)
