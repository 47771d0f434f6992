"""Every method of FeatureStore with values of any Python type: an answer, or an error of dynrec_store that names argument or value."""

import inspect
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from dynrec_store.exceptions import InvalidArgumentError
from dynrec_store.store import FeatureStore
from tests.hostile.canary import FRAGMENTS, has_sung
from tests.hostile.conftest import open_session
from tests.hostile.values import HUGE, ODD
from workers.encoders.hashing import HashingEncoder

MOMENT = datetime(2024, 3, 2, tzinfo=UTC)

# What each argument needs for the others to matter.
RIGHT: dict[str, Any] = {
    "recommender": "shop", "user_id": "u1", "item": "1", "item_id": "1", "item_ids": ["1"], "name": "shop", "experiment": "colours", "begin": MOMENT,
    "end": MOMENT + timedelta(days=3), "model_version": 1, "baseline": 1, "arms": [{"arm": "a"}, {"arm": "b"}], "traffic": 1.0, "impressions": [],
    "receipt": {}, "items": "shop.products", "family": "hashing", "model": "", "dimension": 8, "text": "lamp",
}  # fmt: skip


class Odd:
    """Of no use to anybody."""

    def __repr__(self) -> str:
        return "<an odd thing>"


def loops() -> Iterator[Any]:
    """Lists and mappings that contain themselves, or are nested deeper than anything can follow."""
    cyclic_list: list[Any] = []
    cyclic_list.append(cyclic_list)
    cyclic: dict[str, Any] = {"weight": 1}
    cyclic["arm"] = cyclic
    deep: Any = []
    deep_object: Any = {}
    for _ in range(100_000):
        deep, deep_object = [deep], {"a": deep_object}
    yield from (cyclic_list, cyclic, [cyclic], deep, deep_object)


PLAIN: list[Any] = [
    None, True, 0, -1, 2**31, 2**63, 10**400, -(10**5000), 1.0, 3.5, -0.0, float("nan"), float("inf"), 5e-324, 1e308, 1j, Decimal("NaN"), Decimal("1e-400"), Fraction(1, 3),
    b"1", bytearray(b"\x00"), memoryview(b"u1"), "\0", "a\0b", "\ud800", "\udfff\ud800", UUID(int=1), Odd(), Odd, len, object(), range(3), iter(["1"]), {"1"}, ("1",),
    datetime(2024, 3, 2), datetime.min, datetime.max, date(2024, 3, 2), MOMENT.time(), timedelta.max, timedelta.min, timedelta(microseconds=1),
    np.int64(3), np.float32("nan"), np.bool_(True), np.str_("u1"), np.datetime64("2024-03-02"), np.array([1.0, 2.0]), np.array([[1]]), np.array("x"), np.array([None]), np.array([1e300]),
    [], [None], [[]], [["a"], ["b", "c"]], [1, "a"], [float("nan")], ["\0"], ["\ud800"], [Odd()], [b"x"], [{"user_id": "u1", "item_ids": ["\0"]}], [{"user_id": np.int64(1), "item_ids": {"1"}}],
    {}, {"a": float("nan")}, {"a": Odd()}, {"a": b"x"}, {1: 2}, {(1, 2): 3}, {"\0": "\0"}, {"\ud800": "\udfff"}, {"half_life": timedelta(days=1)}, {"a": np.array([1, 2])}, {"a": 10**5000},
]  # fmt: skip

hostile = st.one_of(
    st.sampled_from(PLAIN), st.sampled_from([*ODD, *FRAGMENTS, *HUGE]), st.sampled_from(list(loops())),
    st.lists(st.sampled_from([*ODD, *PLAIN]), max_size=3), st.dictionaries(st.sampled_from(ODD), st.sampled_from([*ODD, *PLAIN]), max_size=3),
)  # fmt: skip


def methods() -> list[str]:
    """Every public method that takes something."""
    found = inspect.getmembers(FeatureStore, inspect.isfunction)
    return [
        name for name, method in found if not name.startswith("_") and len(inspect.signature(method).parameters) > 1
    ]


@pytest.fixture
def store(busy_url: str) -> Iterator[FeatureStore]:
    encoder = HashingEncoder()
    with FeatureStore.connect(busy_url, encode=lambda _, text: encoder.encode([text])[0]) as opened:
        yield opened


@pytest.mark.parametrize("method", methods())
def test_hostile_objects(store: FeatureStore, busy_url: str, method: str) -> None:
    called: Callable[..., object] = getattr(store, method)
    parameters = inspect.signature(called).parameters
    right = {name: RIGHT[name] for name, one in parameters.items() if one.default is inspect.Parameter.empty}

    @settings(max_examples=settings().max_examples * 3)
    @given(st.dictionaries(st.sampled_from(list(parameters)), hostile, min_size=1, max_size=2))
    def call(arguments: dict[str, Any]) -> None:
        try:
            called(**right | arguments)
        except InvalidArgumentError as error:
            event(f"{method}: {type(error).__name__}")
            assert len(str(error)) < 3_000  # noqa: PT017 - an answer is as good
            assert any(names(str(error), name, value) for name, value in arguments.items()), error  # noqa: PT017
        else:
            event(f"{method}: answered")

    call()
    with open_session(busy_url) as connection:
        assert not has_sung(connection)


def names(message: str, name: str, value: object) -> bool:
    """Whether a message has an argument's name, or the beginning of its value."""
    if name in message or isinstance(value, list | dict | set | tuple):
        return True  # which part is at fault is said in the words of each function
    if value is None:
        return "null" in message or "None" in message
    return str(value).strip()[:10] in message


def test_keys_that_only_look_like_keys(store: FeatureStore) -> None:
    for wrong in (None, 1.0, b"u1", True, ["u1"], Odd()):
        with pytest.raises(InvalidArgumentError, match="user_id"):
            store.recommend("shop", wrong)  # type: ignore[arg-type]
    assert store.recommend("shop", np.int64(7), k=1) == store.recommend("shop", "7", k=1)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match=r"item_ids.*'12'"):
        store.recommend_for_items("shop", "12")


def test_a_missing_argument_is_named(store: FeatureStore) -> None:
    with pytest.raises(InvalidArgumentError, match="recommender is missing"):
        store.pause(None)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="from is missing"):
        store.evaluate("shop", None, MOMENT)  # type: ignore[arg-type]


def test_a_value_of_a_type_that_no_argument_has_is_named(store: FeatureStore) -> None:
    with pytest.raises(InvalidArgumentError, match=r"3\.5"):
        store.recommend("shop", "u1", k=3.5)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="99999999999999999999"):
        store.promote_model("shop", 99999999999999999999)
