"""JSON and base64, accepted and refused."""

from __future__ import annotations

from typing import Any

from colonist_protocol import codec
from scripts.vectors.case import bad


def vectors() -> dict[str, Any]:
    data = [b"", b"a", b"ab", b"abc", b"{}", bytes(range(256)), b"\xff\xfe\xfd", b"\x00" * 5]
    return {
        "accepted": ACCEPTED_JSON,
        "refused": REFUSED_JSON,
        "written": [{"value": value, "text": codec.encode(value).decode()} for value in WRITTEN],
        "base64": [{"hex": item.hex(), "text": codec.to_base64(item)} for item in data],
        "bad_base64": [bad(why, "bad_base64", text) for why, text in BAD_BASE64],
    }


ACCEPTED_JSON = [
    *("null", "true", "0", "-0", "-1", "1.5", "1E5", "1e-999", "1e308", '""', "[]", "{}"),
    *(" 1 ", "\t[\r\n1 , 2 ]", '{"a":1,"b":1}', '{"a":{"a":1}}', '[{"a":1},{"a":1}]'),
    *('{"a:":1,"a":":"}', '{"":1}', '{"a":1,"A":2}', '{":":":::","::":[":"]}', '{"\\u003a":":"}'),
    *('"\\ud83d\\udc1d"', '"\\u0000"', '"\\/"', '"\U0001f41d"', '"\u007f"', '"\\b\\f\\n\\r\\t"'),
    *("[" * 32 + "]" * 32, '{"a":' * 32 + "1" + "}" * 32, '"' + "[" * 40 + '"'),
    *("9" * 30, "1" * 4300, "-" + "1" * 4299, '"' + "1" * 5000 + '"', "1" * 300 + ".5"),
]
REFUSED_JSON = [
    *(
        bad("no JSON", "not_json", text)
        for text in (
            *("", " ", "nul", "True", "undefined", "'a'", "[1,]", '{"a":1,}', "{1:2}", '{"a"}'),
            *(
                "01",
                "1.",
                ".5",
                "+1",
                "1e",
                "--1",
                "0x10",
                "1_000",
                "[1 2]",
                "1 2",
                "{}{}",
                "[",
                "}",
            ),
            *(
                '"',
                '"\\x"',
                '"\\u12"',
                '"a\nb"',
                '"\t"',
                '"\u0000"',
                "\u00a01",
                "1\u0000",
                "\ufeff1",
            ),
        )
    ),
    *(
        bad("number", "bad_number", text)
        for text in (
            *("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "[1e999]", '{"a":[NaN]}'),
            *("1" * 4301, "-" + "1" * 4300, "1" * 10_000, "-" + "1" * 10_000, "1" * 400 + ".5"),
        )
    ),
    *(
        bad("lone surrogate", "lone_surrogate", text)
        for text in (
            *('"\\ud800"', '"\\udc00"', '"\\udc1d\\ud83d"', '"\\ud83dx"', '"\\ud83d\\u0041"'),
            *('{"\\ud800":1}', '["\\ud83d\\ud83d\\udc1d"]'),
        )
    ),
    *(
        bad("member twice", "duplicate_member", text)
        for text in (
            *('{"a":1,"a":1}', '{"a":1,"b":2,"a":3}', '[[{"a":1,"a":2}]]', '{"":1,"":2}'),
            *('{"a":{"b":1,"b":2}}', '{"a":1,"\\u0061":2}', '{"a":1,"a":"\\u003a"}'),
            *('{"\\u003a":1,":":2}', '{"a":":","a":"\\u003A\\u003a"}', '{"\u00e5":1,"\\u00e5":2}'),
        )
    ),
    *(
        bad("too deep", "too_deep", text)
        for text in (
            *("[" * 33 + "]" * 33, '{"a":' * 33 + "1" + "}" * 33, "[" * 5000 + "]" * 5000),
            *('{"a":[' * 17 + "1" + "]}" * 17, "[" * 400 + "]" * 400),
        )
    ),
    *(
        bad("not UTF-8", "not_utf8", data)
        for data in (
            *(b"\xff", b'"\xe5"', b'"\xc0\xaf"', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"'),
            *(b'{"\xff":1}', b'"\xe2\x82"', b'{"a":"b"}\x80'),
        )
    ),
]
WRITTEN: list[Any] = [
    *(None, True, False, 0, -1, 2**63 - 1, -(2**63), "", "a", [], {}, [1, "a", None]),
    *({"b": 1, "a": [{}]}, "\u00e5\u65e5\U0001f41d", '"\\/<>&', "\b\f\n\r\t", "\u0000\u001f\u007f"),
    "\u0080\u2028\ufeff",
]
BAD_BASE64 = [
    *(
        ("no padding", "YQ"),
        ("half a padding", "YQ="),
        ("one character", "Y"),
        ("padding alone", "="),
    ),
    *(("four paddings", "===="), ("too much padding", "YWI=="), ("padding inside", "YQ==YQ==")),
    *(("bits beyond the end", "YR=="), ("bits beyond the end", "YWJ="), ("space", "YWJj ")),
    *(("line end", "YWJj\n"), ("line end inside", "YW\nJj"), ("URL alphabet", "-_-_")),
    *(("other character", "YW*j"), ("not ASCII", "YW\u00e5j"), ("not ASCII", "\uff39WJj")),
    *(("zero", "YWJj\u0000"), ("comma", "YWJj,"), ("padding first", "=YWJ")),
]
