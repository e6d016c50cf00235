"""Amounts, times, names and topics."""

from __future__ import annotations

from typing import Any

from colonist_protocol import names, times, units
from colonist_protocol.topics import Topics
from scripts.vectors.case import PUBLISHED, bad


def unit_vectors() -> dict[str, Any]:
    memory = ["", "0", "1", "4096", "007", str(2**63 - 1), "500M", "1Gi", "1048575", "8388607Ti"]
    memory += [f"3{unit}{end}" for unit in "KMGT" for end in ("", "B", "b", "i", "iB")]
    return {
        "cpu": [
            {"text": text, "millicores": amount, "normal": units.cpu_text(amount)}
            for text in (
                "",
                "0",
                "2",
                "1500m",
                "0m",
                "1000m",
                "64",
                "0007m",
                "9223372036854775807m",
            )
            for amount in (units.parse_cpu(text),)
        ],
        "memory": [
            {"text": text, "bytes": amount, "normal": units.memory_text(amount)}
            for text in memory
            for amount in (units.parse_memory(text),)
        ],
        "bad_cpu": [
            bad("no CPU", "bad_amount", text)
            for text in (
                *(
                    "m",
                    "1.5m",
                    "-1m",
                    "+1",
                    " 1",
                    "1 m",
                    "1M",
                    "1mm",
                    "1k",
                    "1e3",
                    "\u0661m",
                    "1m\n",
                ),
                *("9223372036854775808m", "9223372036854776", "1" * 20, "1" * 10_000),
            )
        ],
        "bad_memory": [
            bad("no memory", "bad_amount", text)
            for text in (
                *(
                    "Mi",
                    "1.5Gi",
                    "-1Gi",
                    "+1",
                    " 1",
                    "1 Gi",
                    "1gi",
                    "1KI",
                    "1ki",
                    "1Pi",
                    "1GiBB",
                    "1i",
                ),
                *("1m", "1MiB ", "0x10", "\u0663Mi", "1\n", "9223372036854775808", "8388608Ti"),
                *("1" * 20, "1" * 10_000, "1Gib"),
            )
        ],
    }


def time_vectors() -> dict[str, Any]:
    written = [
        *(0, 1_000, 999, 1_000_000_000, 1_795_246_274_278_554_097, -1_000, 2**63 - 1),
        *(951_782_400_000_000_000, 4_102_444_799_999_999_999),
    ]
    read = [
        *("", times.UNSET, "0001-01-01T01:12:12+01:12", "0001-01-01T00:00:00+23:59"),
        *("1970-01-01T00:00:00Z", "2026-11-22T07:31:14.278554Z", "2026-11-22T07:31:14.278554097Z"),
        *("2026-11-22T07:31:14Z", "2026-11-22t07:31:14z", "2026-11-22T07:31:14.5+02:00"),
        *("2026-11-22T07:31:14-00:00", "2024-02-29T23:59:59.999999999Z", "1969-12-31T23:59:59.9Z"),
        "9999-12-31T23:59:59Z",
    ]
    refused = [
        *(
            "now",
            "0",
            "2026-11-22",
            "2026-11-22T07:31:14",
            "2026-11-22 07:31:14Z",
            "20261122T073114Z",
        ),
        *("2026-W47-7T07:31:14Z", "2026-11-22T07:31Z", "2026-11-22T07Z", "2026-11-22T07:31:14.Z"),
        *("2026-11-22T07:31:14,5Z", "2026-11-22T07:31:14.1234567890Z", "2026-13-01T00:00:00Z"),
        *("2026-02-29T00:00:00Z", "2026-11-22T24:00:00Z", "2026-11-22T07:60:00Z"),
        *(
            "2026-11-22T07:31:60Z",
            "0000-01-01T00:00:00Z",
            "10000-01-01T00:00:00Z",
            " 2026-11-22T07:31:14Z",
        ),
        *("2026-11-22T07:31:14Z\n", "2026-11-22T07:31:14+0200", "2026-11-22T07:31:14+24:00"),
        *("2026-11-22T07:31:14 Z", "\u0662026-11-22T07:31:14Z", "-2026-11-22T07:31:14Z"),
    ]
    return {
        "written": [{"ns": ns, "text": times.to_text(ns)} for ns in written],
        "read": [{"text": text, "ns": times.from_text(text)} for text in read],
        "refused": [bad("no time", "bad_time", text) for text in refused],
    }


def name_vectors() -> dict[str, Any]:
    good_names = [
        "a",
        "c-1",
        "A b",
        "x" * 128,
        "\u00e5ke",
        "\u65e5\u672c",
        "\U0001f41d",
        ".",
        "*",
        "a+b#c",
        "1",
    ]
    for name in good_names:
        names.check_name(name, "name")
    unfit = [
        "\u0000",
        "\n",
        "\t",
        "\u001f",
        "\u007f",
        "\u0085",
        "\u009f",
        "\u2028",
        "\u202e",
        "\u2066",
        "\ufeff",
    ]
    return {
        "names": good_names,
        "bad_names": [
            bad("empty", "bad_name", ""),
            bad("too long", "bad_name", "x" * 129),
            *(bad("character", "bad_name", f"a{each}b") for each in [*unfit, ":", "/", "\\"]),
            *(bad("at the start", "bad_name", f"{each}b") for each in [*unfit, " ", "\u00a0", ":"]),
            *(bad("at the end", "bad_name", f"a{each}") for each in [*unfit, " ", "\u00a0", "/"]),
        ],
        "texts": ["", " ", "a:b/c\\d", "x" * 1024, "\u00e5 \u65e5"],
        "bad_texts": [
            bad("too long", "bad_name", "x" * 1025),
            *(bad("character", "bad_name", f"a{each}b") for each in unfit),
        ],
        "ids": ["0" * 64, "0123456789abcdef" * 4],
        "bad_ids": [
            bad("no id", "bad_id", text)
            for text in ("", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "0" * 63 + " ", "\u0661" * 64)
        ],
    }


def topic_vectors() -> dict[str, Any]:
    device = str(PUBLISHED[0][1])
    topics, other = Topics(), Topics("a/b.c/d_e/F-1")
    parsed = [
        (topics, topics.device(device, "req")),
        (other, other.device(device, "lost")),
        *((topics, topic) for topic in ("", "/", "colonist/v1", f"colonist/v1/{device}", device)),
        *((topics, topic) for topic in (f"colonist/v1/{device}/", f"colonist/v2/{device}/req")),
        *(
            (topics, topic)
            for topic in (f"colonist/v1/{device.upper()}/req", "colonist/v1/gw/b/state")
        ),
        *(
            (topics, topic)
            for topic in (f"x/colonist/v1/{device}/req", f"colonist/v1/{device}/a/b")
        ),
        (other, topics.device(device, "req")),
    ]
    return {
        "written": [
            {
                "prefix": each.prefix,
                "device": device,
                "bridge": "gw-1",
                "leaf": leaf,
                "device_topic": each.device(device, leaf),
                "every_device": each.every_device(leaf),
                "gateway": each.gateway("gw-1", leaf),
                "every_gateway": each.every_gateway(leaf),
            }
            for each in (topics, other)
            for leaf in ("req", "rep", "state", "lost")
        ],
        "parsed": [
            {"prefix": each.prefix, "topic": topic, "found": each.parse_device(topic)}
            for each, topic in parsed
        ],
        "bad_prefixes": [
            bad("no prefix", "bad_topic", text)
            for text in (
                "",
                "/",
                "a/",
                "/a",
                "a//b",
                "a/b/c/d/e",
                "+",
                "a/#",
                "a b",
                "\u00e5",
                "a" * 33,
                "a\n",
            )
        ],
        "bad_devices": [
            bad("no id", "bad_topic", text)
            for text in ("", "+", "#", "A" * 64, "0" * 63, "0" * 64 + "\n")
        ],
        "bad_bridges": [
            bad("no bridge", "bad_topic", text)
            for text in ("", "A", "a_b", "a" * 33, "+", "a/b", "a\n")
        ],
    }
