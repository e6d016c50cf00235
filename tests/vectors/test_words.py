import pytest

from colonist_core.history import links, removal
from colonist_core.process import Event
from colonist_protocol import audit, codec, evidence, names, times, units
from colonist_protocol.attribute import attribute_id
from colonist_protocol.codec import encode
from colonist_protocol.identity import recover
from colonist_protocol.topics import Topics
from tests.vectors.cases import check_refused, load, text_of

UNITS, TIMES, NAMES, TOPICS, EVIDENCE = map(load, ("units", "times", "names", "topics", "evidence"))
DEVICE = TOPICS["written"][0]["device"]


def first_words(case):
    return str(case.get("text", case))[:20] if isinstance(case, dict) else str(case)[:20]


def each(cases):
    return pytest.mark.parametrize("case", cases, ids=first_words)


@each(UNITS["cpu"])
def test_cpu(case):
    assert units.parse_cpu(case["text"]) == case["millicores"]
    assert units.cpu_text(case["millicores"]) == case["normal"]
    assert units.parse_cpu(case["normal"]) == case["millicores"]


@each(UNITS["memory"])
def test_memory(case):
    assert units.parse_memory(case["text"]) == case["bytes"]
    assert units.memory_text(case["bytes"]) == case["normal"]


@each(UNITS["bad_cpu"])
def test_bad_cpu_is_refused(case):
    check_refused(case, lambda: units.parse_cpu(text_of(case)))


@each(UNITS["bad_memory"])
def test_bad_memory_is_refused(case):
    check_refused(case, lambda: units.parse_memory(text_of(case)))


@each(TIMES["written"])
def test_times_are_written(case):
    assert times.to_text(case["ns"]) == case["text"]


@each(TIMES["read"])
def test_times_are_read(case):
    assert times.from_text(case["text"]) == case["ns"]


@each(TIMES["refused"])
def test_bad_times_are_refused(case):
    check_refused(case, lambda: times.from_text(text_of(case)))


def test_good_names_texts_and_ids_pass():
    for name in NAMES["names"]:
        assert names.check_name(name, "name") == name
    for text in NAMES["texts"]:
        assert names.check_text(text, "text") == text
    for text in NAMES["ids"]:
        assert names.check_id(text, "id") == text


@each(NAMES["bad_names"])
def test_bad_names_are_refused(case):
    check_refused(case, lambda: names.check_name(text_of(case), "name"))


@each(NAMES["bad_texts"])
def test_bad_texts_are_refused(case):
    check_refused(case, lambda: names.check_text(text_of(case), "text"))


@each(NAMES["bad_ids"])
def test_bad_ids_are_refused(case):
    check_refused(case, lambda: names.check_id(text_of(case), "id"))


@each(TOPICS["written"])
def test_topics_are_written(case):
    topics = Topics(case["prefix"])
    assert topics.device(case["device"], case["leaf"]) == case["device_topic"]
    assert topics.every_device(case["leaf"]) == case["every_device"]
    assert topics.gateway(case["bridge"], case["leaf"]) == case["gateway"]
    assert topics.every_gateway(case["leaf"]) == case["every_gateway"]


@each(TOPICS["parsed"])
def test_topics_are_read(case):
    found = Topics(case["prefix"]).parse_device(case["topic"])
    assert found == (tuple(case["found"]) if case["found"] else None)


@each(TOPICS["bad_prefixes"])
def test_bad_prefixes_are_refused(case):
    check_refused(case, lambda: Topics(text_of(case)))


@each(TOPICS["bad_devices"])
def test_bad_devices_are_refused(case):
    check_refused(case, lambda: Topics().device(text_of(case), "req"))


@each(TOPICS["bad_bridges"])
def test_bad_bridges_are_refused(case):
    check_refused(case, lambda: Topics().gateway(text_of(case), "state"))


@each(EVIDENCE["digests"])
def test_digests(case):
    assert evidence.tagged_digest(case["tag"], *case["parts"]).hex() == case["digest"]


def test_a_chain_binds_each_line_to_the_one_before():
    head = ""
    for case in EVIDENCE["chain"]:
        line = evidence.EventLine(**case["line"])
        assert line.prev == head
        assert encode(line).decode() == case["text"]
        head = evidence.event_hash(line).hex()
        assert head == case["hash"]


@each(EVIDENCE["attributes"])
def test_attribute_ids(case):
    assert attribute_id(case["target"], case["key"], case["kind"]) == case["id"]


def test_stored_events_are_told_as_the_lines_that_were_hashed() -> None:
    stored = [
        Event(*case["stored"][:3], *map(bytes.fromhex, case["stored"][3:]))
        for case in EVIDENCE["history"]
    ]
    told = list(links("ab" * 32, stored[:-1]))
    told.append(removal("ab" * 32, len(told), stored[-1], told[-1].head))
    for case, link in zip(EVIDENCE["history"], told, strict=True):
        assert codec.encode(link.line).decode() == case["line"]
        assert (link.line.what, link.head.hex()) == (case["what"], case["head"])


def test_checkpoints_are_signed_over_their_lines() -> None:
    before = ""
    for case in EVIDENCE["checkpoints"]:
        checkpoint = codec.decode(case["line"].encode(), audit.Checkpoint, "")
        assert codec.encode(checkpoint).decode() == case["line"]
        assert checkpoint.prev == before
        before = audit.checkpoint_digest(case["line"]).hex()
        assert before == case["digest"]
        mark = codec.decode(case["mark"].encode(), audit.CheckpointSignature, "")
        assert recover(audit.checkpoint_text(case["line"]), mark.sig) == case["server"]


def test_a_colonys_own_chain_is_named_by_what_all_its_chains_begin_with() -> None:
    assert audit.colony_chain("0a0b0c0d") == "0a0b0c0d" + "0" * 56
