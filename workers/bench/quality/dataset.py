"""A data set: who met what when, what is known of the items, and how that changed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

SECOND = 1_000_000  # times are microseconds since 1970 in UTC
DAY = 86_400 * SECOND


@dataclass(frozen=True)
class Log:
    """Events in the order of their times; arrays of the same length. No user has two events at one time."""

    user: Ints  # a row of Dataset.users
    item: Ints  # a row of Dataset.attributes
    time: Ints
    kind: npt.NDArray[np.object_] | None
    value: npt.NDArray[np.float64] | None

    def __len__(self) -> int:
        return len(self.user)


@dataclass(frozen=True)
class Roles:
    """What the attribute columns are, each in one of the three."""

    text: tuple[str, ...]
    categorical: tuple[str, ...]
    numeric: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All of them, in the order in which texts are made."""
        return self.text + self.categorical + self.numeric


@dataclass(frozen=True)
class Dataset:
    """All of it. `attributes` is indexed by item key, and has the columns of `roles` in their order."""

    name: str
    users: Sequence[str]
    attributes: pd.DataFrame
    roles: Roles
    log: Log
    history: pd.DataFrame  # item (a row of attributes), valid_from, changed columns (null: unchanged); ordered by time

    @property
    def items(self) -> int:
        """How many items there are."""
        return len(self.attributes)

    def attributes_at(self, moment: int) -> pd.DataFrame:
        """The attributes in force at a moment (microseconds); before its first change an item has its first values."""
        changes = self.history[self.history.valid_from <= moment]
        if changes.empty:
            return self.attributes
        latest = changes.drop(columns="valid_from").groupby("item").last()
        known = self.attributes.copy()
        for column in latest.columns:
            values = latest[column].dropna()
            known.iloc[values.index.to_numpy(), known.columns.get_loc(column)] = values.to_numpy()
        return known

    def texts_at(self, moment: int) -> list[str]:
        """What an encoder sees of each item: texts and categories, as dynrec_store joins them."""
        columns = list(self.roles.text + self.roles.categorical)
        rows = self.attributes_at(moment)[columns].astype(object).itertuples(index=False)
        return [". ".join(s for s in (str(v).strip() for v in row if not pd.isna(v)) if s) for row in rows]


def make_log(events: pd.DataFrame, users: pd.Index, items: pd.Index) -> Log:
    """Order events (user_id, item_id, time, optional kind, value), each once; those of one user at one time spread.

    Rows keep their order where times are equal, and events of a user at the same time come to lie a microsecond
    apart: the lines of an invoice were entered one after the other.
    """
    columns = [c for c in ("user_id", "item_id", "time", "kind") if c in events]
    events = events.drop_duplicates(columns).sort_values("time", kind="stable")
    time = events.time + events.groupby(["user_id", "time"]).cumcount()
    events = events.assign(time=time).sort_values("time", kind="stable")
    return Log(
        user=users.get_indexer(events.user_id).astype(np.int64),
        item=items.get_indexer(events.item_id).astype(np.int64),
        time=events.time.to_numpy(np.int64),
        kind=events.kind.to_numpy(object) if "kind" in events else None,
        value=events.value.to_numpy(np.float64) if "value" in events else None,
    )


def make_dataset(
    name: str, events: pd.DataFrame, attributes: pd.DataFrame, roles: Roles, history: pd.DataFrame | None = None
) -> Dataset:
    """Put it together. `events` as in make_log; `attributes` by item key; `history`: item_id, valid_from, columns.

    Items that were met and have no attributes become items of which nothing else is known.
    """
    users = pd.Index(events.user_id.unique())
    unknown = pd.Index(events.item_id.unique()).difference(attributes.index)
    attributes = attributes.reindex(attributes.index.append(unknown).rename("item_id"))[list(roles.names)]
    if history is None:
        history = pd.DataFrame({"item": np.empty(0, np.int64), "valid_from": np.empty(0, np.int64)})
    else:
        history = history.assign(item=attributes.index.get_indexer(history.item_id)).drop(columns="item_id")
        history = history[history.item >= 0].sort_values("valid_from", kind="stable").reset_index(drop=True)
    log = make_log(events, users, attributes.index)
    return Dataset(name, users.tolist(), attributes, roles, log, history)
