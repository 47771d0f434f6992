"""Reading a data set in the neutral form: csv or parquet files with interactions, items, and changes of items."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dynrec_store.exceptions import ConfigurationError
from workers.bench.quality.dataset import SECOND, Dataset, Roles, make_dataset

KEYS = ("user_id", "item_id")

MAX_CATEGORIES = 50  # distinct values that a column may have and be categorical, or this share of the items:
CATEGORY_SHARE = 0.05
LONGEST_CATEGORY = 40  # letters on average; longer is text

LATEST = 8e9  # seconds since 1970, in 2223: no time lies beyond, nor as long before 1970, which is in 1716


def read_neutral(
    interactions: Path,
    items: Path,
    history: Path | None = None,
    *,
    text: Sequence[str] = (),
    categorical: Sequence[str] = (),
    numeric: Sequence[str] = (),
) -> Dataset:
    """Read the files; the columns named override what would be made of them.

    Raises ConfigurationError, which names the file, the column and the value.
    """
    given = _given({"text": text, "categorical": categorical, "numeric": numeric})
    events = _read_interactions(interactions)
    attributes = _read_items(items)
    for column in given:
        if column not in attributes:
            raise _wrong(items, column, "there is no such column", f"choose from {', '.join(attributes)}")
    roles = _roles(attributes, given)
    if not roles.text + roles.categorical:
        raise ConfigurationError(
            f"{items} has numbers alone: add a column that describes an item, or name one by --text or --categorical"
        )
    attributes = _converted(items, attributes, roles)
    changes = None if history is None else _read_history(history, roles)
    _check_described(items, [attributes] if changes is None else [attributes, changes], roles)
    for file, keys in ((interactions, events.item_id), (history, None if changes is None else changes.item_id)):
        if file is not None and keys is not None:
            _check_known(file, keys, items, attributes.index)
    return make_dataset(interactions.stem, events, attributes, roles, changes)


def _given(columns: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The role of each column, from the columns of each role."""
    given: dict[str, str] = {}
    for role, names in columns.items():
        for column in names:
            if given.setdefault(column, role) != role:
                raise ConfigurationError(
                    f"column {column} is named by --{given[column]} and by --{role}: leave it out of one of them"
                )
    return given


def _read_interactions(file: Path) -> pd.DataFrame:
    frame = _read(file, ("user_id", "item_id", "occurred_at"))
    events = pd.DataFrame({c: _keys(file, frame[c]) for c in ("user_id", "item_id")})
    events["time"] = _times(file, frame.occurred_at)
    if "kind" in frame:
        events["kind"] = _words(frame.kind)
    if "value" in frame:
        events["value"] = _numbers(file, frame.value)
    if len(events) < 10:
        raise ConfigurationError(f"{file} has {len(events)} interactions: give at least 10, better 10,000")
    return events


def _read_items(file: Path) -> pd.DataFrame:
    frame = _read(file, ("item_id",))
    keys = _keys(file, frame.item_id)
    if keys.empty:
        raise ConfigurationError(f"{file} has no rows: give one for each item")
    if keys.duplicated().any():
        raise _wrong(file, "item_id", f"{keys[keys.duplicated()].iloc[0]!r} is there twice", "keep one row an item")
    attributes = frame.drop(columns="item_id").set_index(pd.Index(keys, name="item_id"))
    if attributes.columns.empty:
        raise ConfigurationError(f"{file} has no column but item_id: add what describes an item, such as title")
    return attributes.map(_joined)


def _joined(value: object) -> object:
    """Lists, which parquet reads as arrays, as dynrec_store joins them."""
    return ", ".join(map(str, value)) if isinstance(value, list | np.ndarray) else value


def _read_history(file: Path, roles: Roles) -> pd.DataFrame:
    frame = _read(file, ("item_id", "valid_from"))
    for column in ("item", "valid_from"):
        if column in roles.names and column in frame:
            raise _wrong(file, column, "is a name that histories keep for themselves", "rename the attribute")
    for column in frame.columns.difference(["item_id", "valid_from", *roles.names]):
        raise _wrong(file, column, "items have no such column", f"choose from {', '.join(roles.names)}")
    if not set(roles.names) & set(frame):
        raise ConfigurationError(
            f"{file} has no attribute of the items: add columns such as {roles.names[0]}, or leave out --history"
        )
    changes = frame.assign(item_id=_keys(file, frame.item_id), valid_from=_times(file, frame.valid_from))
    return _converted(file, changes, roles)


def _converted(file: Path, frame: pd.DataFrame, roles: Roles) -> pd.DataFrame:
    """The attributes among the columns as their roles want them: numbers, or words that any other may replace."""
    numbers = {c: _numbers(file, frame[c]) for c in roles.numeric if c in frame}
    return frame.assign(**numbers, **{c: _words(frame[c]) for c in _described_by(frame, roles)})


def _described_by(frame: pd.DataFrame, roles: Roles) -> list[str]:
    return [column for column in roles.text + roles.categorical if column in frame]


def _check_described(items: Path, frames: Sequence[pd.DataFrame], roles: Roles) -> None:
    if all(frame[_described_by(frame, roles)].isna().all(axis=None) for frame in frames):
        raise ConfigurationError(
            f"{items} says nothing of any item: fill in one of {', '.join(roles.text + roles.categorical)}"
        )


def _read(file: Path, required: Sequence[str]) -> pd.DataFrame:
    readers: dict[str, Any] = {".csv": _read_csv, ".parquet": pd.read_parquet}
    if file.suffix not in readers:
        raise ConfigurationError(f"{file}: is neither .csv nor .parquet")
    try:
        frame = readers[file.suffix](file)
    except (OSError, ValueError) as error:  # pandas and pyarrow raise the latter for files that are no such files
        raise ConfigurationError(f"{file} cannot be read: {error}") from error
    for column in required:
        if column not in frame:
            raise _wrong(file, column, "is missing", f"rename one of {', '.join(map(str, frame))}")
    return frame


def _read_csv(file: Path) -> pd.DataFrame:
    frame = pd.read_csv(file, dtype={"kind": str}, low_memory=False)
    # keys by themselves: one may be NA or null, which elsewhere stand for nothing
    keys = pd.read_csv(file, dtype=str, usecols=KEYS.__contains__, keep_default_na=False)
    return frame.assign(**{c: keys[c] for c in keys})


def _keys(file: Path, column: pd.Series) -> pd.Series:
    missing = column.isna() | (column.astype(object) == "")
    if missing.any():
        raise _wrong(file, column.name, f"row {_first(missing)} has no value", "leave such rows out")
    return _words(column).astype(str)


def _words(column: pd.Series) -> pd.Series:
    """As text, None where there is nothing."""
    return column.astype(object).map(_word, na_action="ignore").astype(object).where(column.notna(), None)


def _word(value: object) -> str:
    """A value as text; whole numbers without a fraction, as they come as floats from columns with gaps."""
    whole = isinstance(value, float | Decimal) and value % 1 == 0
    return str(int(value) if whole else _joined(value))  # type: ignore[call-overload]


def _is_decimal(column: pd.Series) -> bool:
    return bool(pd.api.types.infer_dtype(column, skipna=True) == "decimal")


def _check_known(file: Path, keys: pd.Series, items: Path, known: pd.Index) -> None:
    unknown = ~keys.isin(known)
    if unknown.any():
        row = _first(unknown)
        raise _wrong(
            file,
            "item_id",
            f"row {row}: there is no item {keys.iloc[row - 1]!r} in {items} ({keys[unknown].nunique()} such items)",
            "add them there, or leave their rows out",
        )


def _times(file: Path, column: pd.Series) -> pd.Series:
    """Microseconds since 1970; numbers are seconds, times without a zone are UTC."""
    if _is_decimal(column):
        column = column.astype(float)
    if pd.api.types.is_numeric_dtype(column):
        times = pd.to_datetime(column.where(column.abs() < LATEST), unit="s", utc=True)
    else:
        times = pd.to_datetime(column, utc=True, errors="coerce", format=None if _is_time(column) else "ISO8601")
    moments = times.astype("datetime64[us, UTC]").astype("int64")
    bad = times.isna() | (moments.abs() >= LATEST * SECOND)
    if bad.any():
        row = _first(bad)
        value = column.iloc[row - 1]
        raise _wrong(
            file,
            column.name,
            f"row {row} has no time" if pd.isna(value) else f"row {row}: {str(value)!r} is no time",
            "write it as 2024-05-01T12:00:00Z, or as seconds since 1970, in the years 1717 to 2222",
        )
    return moments


def _is_time(column: pd.Series) -> bool:
    return bool(pd.api.types.is_datetime64_any_dtype(column))


def _numbers(file: Path, column: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce")
    bad = numbers.isna() & column.notna()
    if bad.any():
        row = _first(bad)
        raise _wrong(
            file, column.name, f"row {row}: {column.iloc[row - 1]!r} is no number", "correct it, or leave it empty"
        )
    return numbers.astype(float)


def _first(flags: pd.Series) -> int:
    return int(flags.to_numpy().argmax()) + 1


def _roles(attributes: pd.DataFrame, given: dict[str, str]) -> Roles:
    roles: dict[str, list[str]] = {"text": [], "categorical": [], "numeric": []}
    for column in attributes:
        roles[given.get(column) or _role(attributes[column])].append(column)
    return Roles(*(tuple(roles[role]) for role in ("text", "categorical", "numeric")))


def _role(column: pd.Series) -> str:
    if column.isna().all():
        return "text"  # the history may tell what is in it
    if pd.api.types.is_bool_dtype(column):
        return "categorical"
    if pd.api.types.is_numeric_dtype(column) or _is_decimal(column):
        return "numeric"
    values = column.dropna().astype(str)
    repeating = values.nunique() <= max(MAX_CATEGORIES, CATEGORY_SHARE * len(column)) and not values.is_unique
    return "categorical" if repeating and values.str.len().mean() <= LONGEST_CATEGORY else "text"


def _wrong(file: Path, column: object, problem: str, remedy: str) -> ConfigurationError:
    return ConfigurationError(f"{file}, column {column}: {problem}; {remedy}")
