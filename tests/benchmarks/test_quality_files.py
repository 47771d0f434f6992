"""Files in the neutral form that do not fit together, or are not what they seem."""

from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dynrec_store.exceptions import ConfigurationError
from workers.bench.quality.dataset import Dataset
from workers.bench.quality.neutral import read_neutral

EVENTS = pd.DataFrame(
    {
        "user_id": [f"u{n % 5}" for n in range(50)],
        "item_id": [n % 7 for n in range(50)],
        "occurred_at": pd.date_range("2024-01-01", periods=50, freq="h"),
    }
)
ITEMS = pd.DataFrame(
    {"item_id": range(7), "title": [f"a thing, number {n}" for n in range(7)], "price": np.arange(7.0)}
)
HISTORY = pd.DataFrame({"item_id": [1, 2], "valid_from": ["2024-01-02", "2024-01-03"], "price": [3, 4]})


def written(folder: Path, name: str, frame: pd.DataFrame, suffix: str = "csv") -> Path:
    file = folder / f"{name}.{suffix}"
    if suffix == "csv":
        frame.to_csv(file, index=False)
    else:
        frame.to_parquet(file)
    return file


def read(folder: Path, items: pd.DataFrame, history: pd.DataFrame | None, suffix: str, **given: list[str]) -> Dataset:
    files = [
        None if frame is None else written(folder, name, frame, suffix)
        for name, frame in (("events", EVENTS), ("items", items), ("history", history))
    ]
    assert files[0] is not None
    assert files[1] is not None
    return read_neutral(files[0], files[1], files[2], **given)


def last_of(dataset: Dataset, item: str, column: str) -> object:
    return dataset.attributes_at(2**60).loc[item, column]


def change(**values: object) -> pd.DataFrame:
    return pd.DataFrame({"item_id": [1], "valid_from": ["2024-01-02"], **{c: [v] for c, v in values.items()}})


def refused(folder: Path, events: pd.DataFrame, items: pd.DataFrame, history: pd.DataFrame = HISTORY) -> str:
    files = [written(folder, n, f) for n, f in (("events", events), ("items", items), ("history", history))]
    with pytest.raises(ConfigurationError) as caught:
        read_neutral(*files)
    return str(caught.value).replace(f"{folder}/", "")


def test_items_that_nobody_knows(tmp_path: Path) -> None:
    assert refused(tmp_path, EVENTS, ITEMS[:5]) == (
        "events.csv, column item_id: row 6: there is no item '5' in items.csv (2 such items); "
        "add them there, or leave their rows out"
    )
    assert refused(tmp_path, EVENTS, ITEMS, HISTORY.assign(item_id=[1, 99])).startswith(
        "history.csv, column item_id: row 2: there is no item '99' in items.csv (1 such items)"
    )


def test_items_without_a_row_or_a_word(tmp_path: Path) -> None:
    assert "items.csv has no rows" in refused(tmp_path, EVENTS, ITEMS[:0])
    assert "items.csv has numbers alone" in refused(tmp_path, EVENTS, ITEMS[["item_id", "price"]])


@pytest.mark.parametrize(
    ("value", "says"),
    [(1_704_067_200_000, "row 3: '1704067200000.0' is no time"), (np.nan, "row 3 has no time")],
    ids=["milliseconds", "nothing"],
)
def test_numbers_that_are_no_times(tmp_path: Path, value: float, says: str) -> None:
    seconds = (EVENTS.occurred_at - pd.Timestamp(0)) / pd.Timedelta(1, "s")
    assert says in refused(tmp_path, EVENTS.assign(occurred_at=seconds.where(seconds.index != 2, value)), ITEMS)


def test_seconds_are_times(tmp_path: Path) -> None:
    seconds = (EVENTS.occurred_at - pd.Timestamp(0)) // pd.Timedelta(1, "s")
    by_seconds = read_neutral(
        written(tmp_path, "seconds", EVENTS.assign(occurred_at=seconds)), written(tmp_path, "items", ITEMS)
    )
    by_words = read_neutral(written(tmp_path, "words", EVENTS), written(tmp_path, "items", ITEMS))
    assert by_seconds.log.time.tolist() == by_words.log.time.tolist()


def test_whole_numbers_that_became_floats_are_the_same_keys(tmp_path: Path) -> None:
    dataset = read_neutral(
        written(tmp_path, "events", EVENTS.assign(kind=[1, None] * 25), "parquet"),
        written(tmp_path, "items", ITEMS.astype({"item_id": float}), "parquet"),
    )
    assert dataset.attributes.index.tolist() == [str(n) for n in range(7)]
    assert dataset.log.kind is not None
    assert dataset.log.kind[:2].tolist() == ["1", None]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("column", "given"),
    [([None] * 7, ["note"]), ([None] * 7, []), (list(range(7)), ["note"])],
    ids=["empty, declared", "empty, guessed", "numbers, declared"],
)
def test_histories_may_bring_words_to_columns_that_had_none(
    tmp_path: Path, suffix: str, column: list[object], given: list[str]
) -> None:
    dataset = read(tmp_path, ITEMS.assign(note=column), change(note="funny"), suffix, text=given)
    assert dataset.roles.text == ("title", "note")
    assert last_of(dataset, "1", "note") == "funny"
    assert dataset.texts_at(2**60)[1] == "a thing, number 1. funny"
    assert dataset.texts_at(2**60)[2] == ("a thing, number 2" if column[2] is None else "a thing, number 2. 2")


def test_histories_may_bring_new_categories_and_lists(tmp_path: Path) -> None:
    items = ITEMS.assign(colour=pd.Categorical(list("rgbrgbr")), tags=[["a", "b"]] * 7)
    dataset = read(tmp_path, items, change(colour="black", tags=["c", "d"]), "parquet")
    assert dataset.roles.categorical == ("colour", "tags")
    assert [last_of(dataset, "1", c) for c in ("colour", "tags")] == ["black", "c, d"]
    assert [last_of(dataset, "2", c) for c in ("colour", "tags")] == ["b", "a, b"]


def test_a_number_in_words_keeps_no_fraction_of_zero(tmp_path: Path) -> None:
    dataset = read(tmp_path, ITEMS.assign(code=[7, None, 2.5, *range(4)]), None, "csv", categorical=["code"])
    assert dataset.attributes.code.tolist()[:3] == ["7", None, "2.5"]


def test_items_of_which_nothing_is_said(tmp_path: Path) -> None:
    nothing = ITEMS[["item_id"]].assign(note=None)
    with pytest.raises(ConfigurationError, match=r"items\.csv says nothing of any item: fill in one of note"):
        read(tmp_path, nothing, None, "csv")
    assert last_of(read(tmp_path, nothing, change(note="at last"), "csv"), "1", "note") == "at last"


@pytest.mark.parametrize("name", ["item", "valid_from"])
def test_attributes_whose_name_histories_need(tmp_path: Path, name: str) -> None:
    items = ITEMS.assign(**{name: "2024-01-01"})
    says = refused(tmp_path, EVENTS, items, HISTORY.assign(**{name: "2024-01-02"}))
    assert says == f"history.csv, column {name}: is a name that histories keep for themselves; rename the attribute"
    assert read(tmp_path, items, None, "csv").roles.categorical == (name,)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("year", ["0001", "1500", "2300", "9999"])
def test_years_in_which_nobody_bought(tmp_path: Path, year: str, suffix: str) -> None:
    times = EVENTS.occurred_at.to_numpy("datetime64[us]").copy()
    times[2] = np.datetime64(f"{year}-06-01")
    files = [written(tmp_path, n, f, suffix) for n, f in (("e", EVENTS.assign(occurred_at=times)), ("i", ITEMS))]
    with pytest.raises(ConfigurationError, match=rf"row 3: '{year}-06-01.*' is no time; .* in the years 1717 to 2222"):
        read_neutral(*files)


def test_keys_that_pandas_takes_for_nothing(tmp_path: Path) -> None:
    events, items = (
        EVENTS.assign(user_id="NA", item_id="null"),
        ITEMS.assign(item_id=["null", *range(1, 7)], price="NA"),
    )
    dataset = read_neutral(
        written(tmp_path, "e", events),
        written(tmp_path, "i", items),
        written(tmp_path, "h", change(title="new").assign(item_id="null")),
    )
    assert (dataset.users, dataset.attributes.index[0], set(dataset.log.item)) == (["NA"], "null", {0})
    assert last_of(dataset, "null", "title") == "new"
    assert dataset.attributes.price.isna().all()
    assert "events.csv, column user_id: row 2 has no value" in refused(
        tmp_path, EVENTS.assign(user_id=EVENTS.user_id.where(EVENTS.index != 1, "")), ITEMS
    )


def test_decimals_are_numbers(tmp_path: Path) -> None:
    tenths = [Decimal(n) / 10 for n in range(50)]
    events = EVENTS.assign(
        item_id=[Decimal(f"{n % 7}.0") for n in range(50)],
        value=tenths,
        occurred_at=[Decimal(1_704_067_200 + n) for n in range(50)],
    )
    items = ITEMS.assign(item_id=[Decimal(n) for n in range(7)], price=[None, *tenths[1:7]])
    dataset = read_neutral(
        written(tmp_path, "e", events, "parquet"),
        written(tmp_path, "i", items, "parquet"),
        written(tmp_path, "h", change(price=Decimal("2.5")).assign(item_id=Decimal(1)), "parquet"),
    )
    assert dataset.roles.numeric == ("price",)
    assert dataset.attributes.price.tolist()[1:3] == [0.1, 0.2]
    assert last_of(dataset, "1", "price") == 2.5
    assert dataset.attributes.index.tolist() == [str(n) for n in range(7)]
    assert dataset.log.value is not None
    assert dataset.log.value[:3].tolist() == [0.0, 0.1, 0.2]
    assert dataset.log.time[0] == 1_704_067_200_000_000


def test_a_history_of_no_attribute(tmp_path: Path) -> None:
    says = refused(tmp_path, EVENTS, ITEMS, HISTORY.drop(columns="price"))
    assert says.startswith("history.csv has no attribute of the items: add columns such as ")
    assert says.endswith("or leave out --history")
