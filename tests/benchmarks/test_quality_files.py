"""Files in the neutral form that do not fit together, or are not what they seem."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dynrec_store.exceptions import ConfigurationError
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
        written(tmp_path, "events", EVENTS, "parquet"),
        written(tmp_path, "items", ITEMS.astype({"item_id": float}), "parquet"),
    )
    assert dataset.attributes.index.tolist() == [str(n) for n in range(7)]
