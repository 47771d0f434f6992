"""Hostile values for each type of an argument, as Postgres reads them, and the strategies that choose among them."""

import json
from collections.abc import Sequence
from random import Random
from typing import Any

from hypothesis import strategies as st

from tests.hostile.canary import FRAGMENTS

BIG = 1_000_000  # characters

NOISE = "".join(Random(1).choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", k=BIG))
HUGE = ["x" * BIG, NOISE, "\U0001f600" * (BIG // 4)]


class Value(str):
    """A value that a failing test shows in a line."""

    __slots__ = ()

    def __repr__(self) -> str:
        return super().__repr__() if len(self) < 300 else f"<{len(self)} characters, beginning {self[:100]!r}>"


# First and last of every plane, next to the surrogates, private, right to left, joining, combining, invisible.
ODD = [
    "", " ", "\t\r\n", "\x01\x1f\x7f\x80\x9f", "\ud7ff\ue000\uf8ff\ufffd\uffff", "\u05d0\u0628\u202e\u200f", "\u200b\u200d\ufeff\u2028",
    "e\u0301\u0323", "Z" + "\u0335" * 100, "".join(chr(plane * 0x10000 + end) for plane in range(1, 17) for end in (0, 0xFFFD)),
    "null", "NULL", "'", '"', "\\", "''", "\\x00", "{}", "{id}", "{known}", "%", "%s", "$1", "$$", ";", "--", "/*", "[]", "select", "pg_catalog.pg_class",
    "shop.products", "dynrec_data.change", "*", "a" * 63, "\u00e9" * 32, "Infinity", "NaN", "-1", "1e999", "0x10", "1_000", "007", "+1", "\u0661", "true",
]  # fmt: skip

characters = st.characters(exclude_categories=["Cs"], exclude_characters="\x00")
odd_texts = st.one_of(st.sampled_from(ODD), st.sampled_from(FRAGMENTS), st.text(characters, max_size=30))
texts = st.one_of(odd_texts, odd_texts, odd_texts, st.sampled_from(HUGE))

# What the JSON arguments know, so that values get past the check of names.
FIELDS = [
    "weight", "half_life", "*", "purchase", "exclude_seen", "retention", "max_attempts", "text_search_config", "train_every", "measure_every", "item_refresh",
    "trending_half_life", "user_id", "item_ids", "shown_at", "first_position", "model_version", "surface", "experiment", "arm", "propensities", "share",
    "diversity", "epochs", "seed", "recommender", "user_hash", "forgotten_at", "removed", "top",
]  # fmt: skip
PLAIN_JSON = ["null", "true", "0", "-1", "1e-400", "1e400", "-1e100000", "0.1", "1.5", "12345678901234567890", '"30 days"', '"1"', '"infinity"', '""', "[]", "{}"]  # fmt: skip
DEPTH = 2_000  # brackets
DEEP_JSON = ["[" * DEPTH + "]" * DEPTH, '{"a":' * DEPTH + "1" + "}" * DEPTH, json.dumps([{"user_id": "u1", "item_ids": ["1"] * 9_999}]), json.dumps({"x" * BIG: "y" * BIG})]  # fmt: skip


def _object(members: dict[str, str]) -> str:
    return "{" + ", ".join(f"{json.dumps(name)}: {value}" for name, value in members.items()) + "}"


def _jsons(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    names = st.one_of(st.sampled_from(FIELDS), st.sampled_from(FIELDS), odd_texts)
    return st.one_of(
        st.lists(inner, max_size=4).map(lambda values: f"[{', '.join(values)}]"),
        st.dictionaries(names, inner, max_size=4).map(_object),
    )


plain_jsons = st.one_of(st.sampled_from(PLAIN_JSON), odd_texts.map(json.dumps))
jsons = st.one_of(st.recursive(plain_jsons, _jsons, max_leaves=8), st.sampled_from(DEEP_JSON))


def array(values: Sequence[Any]) -> str:
    """An array as Postgres reads it; None is null."""
    return "{" + ",".join(_element(value) for value in values) + "}"


def _element(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, list):
        return array(value)
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def arrays(elements: st.SearchStrategy[str], *, long: Sequence[str]) -> st.SearchStrategy[str]:
    """Arrays with nulls, of several dimensions, with odd bounds, empty, long."""
    given = st.one_of(elements, st.none())
    return st.one_of(
        st.lists(given, max_size=4).map(array),
        st.lists(st.lists(given, min_size=2, max_size=2), min_size=1, max_size=3).map(array),
        st.tuples(given, given).map(lambda pair: f"[-5:-4]={array(pair)}"),
        st.sampled_from([array(long), "{}", "{{{null}}}"]),
    )


SMALL = [-(2**31), -1, 0, 1, 2, 10_000, 10_001, 2**31 - 1]
LARGE = [*SMALL, -(2**63), 2**63 - 1, 2**53 + 1]
FLOATS = [
    "NaN",
    "Infinity",
    "-Infinity",
    "-0",
    "5e-324",
    "1.7976931348623157e308",
    "-1",
    "0",
    "1",
    "0.5",
    "1.0000000000000002",
]
TIMES = ["infinity", "-infinity", "4713-01-01 BC", "294276-12-31 23:59:59.999999+00", "epoch", "2024-03-01 12:00+00", "2024-03-04 00:00+15:59", "2100-01-01"]  # fmt: skip
INTERVALS = ["0", "-1 second", "1 microsecond", "1 month -30 days", "-178000000 years", "178000000 years", "2147483647 days", "infinity", "-infinity", "1 day", "00:00:00.0000001"]  # fmt: skip
VECTORS = ["[0]", "[1]", "[3.4e38,3.4e38]", "[1e-45,0]", str([0] * 256), str([1] * 256), str([3.4e38] * 256), str([1] * 255), str([1] * 2000), str([1] * 16000)]  # fmt: skip

small = st.one_of(st.sampled_from(SMALL), st.integers(-(2**31), 2**31 - 1)).map(str)
large = st.one_of(st.sampled_from(LARGE), st.integers(-(2**63), 2**63 - 1)).map(str)
floats = st.one_of(st.sampled_from(FLOATS), st.floats().map(repr))
vectors = st.one_of(
    st.sampled_from(VECTORS),
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=4).map(str),
)

_BY_TYPE: dict[str, st.SearchStrategy[str]] = {
    "text": texts,
    "text[]": arrays(texts, long=[str(number) for number in range(20_000)]),
    "integer": small,
    "integer[]": arrays(small, long=["1"] * 20_000),
    "bigint": large,
    "bigint[]": arrays(large, long=["1"] * 20_000),
    "double precision": floats,
    "double precision[]": arrays(floats, long=["1"] * 20_000),
    "boolean": st.sampled_from(["true", "false"]),
    "jsonb": jsons,
    "timestamp with time zone": st.one_of(st.sampled_from(TIMES), st.datetimes().map(str)),
    "interval": st.one_of(
        st.sampled_from(INTERVALS), st.timedeltas().map(lambda span: f"{span.total_seconds()} seconds")
    ),
    "vector": vectors,
    "vector[]": arrays(vectors, long=["[1,0]"] * 1_000),
}

HOSTILE = {name: values.map(Value) for name, values in _BY_TYPE.items()}
