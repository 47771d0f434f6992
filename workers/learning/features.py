"""Features of items as a model reads them, made in training and serving by the same steps."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from zipfile import BadZipFile

import numpy as np
import skops.io
from numpy.typing import NDArray
from skops.io.exceptions import UntrustedTypesFoundException

from workers.learning.cleaning import finite
from workers.learning.data import Floats, Integers, Times
from workers.learning.preprocessing import Column, Numbers, column_options, dropped

Names = Sequence[tuple[str, str]]  # and types: number or label
NumberRows = Times | Sequence[Sequence[float | None] | None]
Labels = Sequence[Sequence[str | None]]

LIMIT_BEFORE = 5.0  # of models that were stored without one
TRUSTED = [
    "numpy.dtype",
    "sklearn.impute._iterative.IterativeImputer",
    "sklearn.impute._iterative._ImputerTriplet",
]  # beside what skops trusts by itself: plain values, arrays, the other parts of scikit-learn


@dataclass(frozen=True)
class Snapshot:
    """The features of n items as they were known at a moment."""

    moment: float  # seconds since 1970
    items: Sequence[str]
    numbers: Times  # (n, F); NaN: missing
    labels: Labels  # n times L; None: missing


@dataclass(frozen=True)
class Memory:
    """The last known numbers of items in the columns that are interpolated."""

    columns: tuple[int, ...]
    items: NDArray[np.str_]  # (m,)
    numbers: Times  # (m, columns); NaN: never known

    def recall(self, items: Sequence[str], width: int) -> Times:
        """Return what is remembered of items (n, width), NaN where there is nothing."""
        recalled = np.full((len(items), width), np.nan)
        if self.columns:
            places = np.array([self._rows.get(item, -1) for item in items], dtype=np.int64)
            known = np.flatnonzero(places >= 0)
            recalled[np.ix_(known, np.array(self.columns, dtype=np.int64))] = self.numbers[places[known]]
        return recalled

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {item: row for row, item in enumerate(self.items.tolist())}


@dataclass(frozen=True)
class FeatureMaker:
    """Makes features out of the numbers and labels of items.

    Numbers: see Numbers and ColumnOptions; without options, what is missing becomes the median and sets a flag, and
    every column is brought to a normal distribution by its quantiles. A column that never varied, or never had a
    number, is 0. Labels become codes, 0 for an unknown or missing one.
    """

    names: tuple[tuple[str, str], ...]  # name and type (number or label), in the order of the rows
    numbers: Numbers
    vocabularies: tuple[dict[str, int], ...]  # the codes of each column of labels
    memory: Memory
    dropped: tuple[str, ...]  # items that were left out of fitting, at one moment at least

    @classmethod
    def fitted(cls, names: Names, snapshots: Sequence[Snapshot], options: object) -> "FeatureMaker":
        """Fit to the snapshots, in the order of their moments; a feature is named with its type, number or label.

        `options`: see column_options; raises ConfigurationError for what cannot be used.
        """
        numbers = [name for name, sort in names if sort == "number"]
        given = column_options(options, numbers)
        rows = [_numbers(snapshot.numbers, len(snapshot.items), len(numbers)) for snapshot in snapshots]
        left_out = {
            snapshot.items[row]
            for snapshot, values in zip(snapshots, rows, strict=True)
            for row in np.flatnonzero(dropped(given, values)).tolist()
        }
        fitted = Numbers.fitted(numbers, given, np.concatenate([np.zeros((0, len(numbers))), *rows]))
        maker = cls(
            names=tuple(names),
            numbers=fitted,
            vocabularies=tuple(_vocabulary(snapshots, place) for place in range(len(names) - len(numbers))),
            memory=Memory(_interpolated(fitted), np.zeros(0, dtype=np.str_), np.zeros((0, 0))),
            dropped=tuple(sorted(left_out)),
        )
        return maker.remembering(snapshots)

    def remembering(self, snapshots: Sequence[Snapshot]) -> "FeatureMaker":
        """Return the same with the last known numbers of these snapshots: for training on with what was fitted before.

        Only columns that are interpolated remember anything.
        """
        items = np.array(sorted({item for snapshot in snapshots for item in snapshot.items}), dtype=np.str_)
        columns = self.memory.columns
        if not columns:
            return self
        last = np.full((len(items), len(self.numbers.columns)), np.nan)
        for snapshot in snapshots:
            last = self._later(last, self._aligned(snapshot, items.tolist()))
        return replace(self, memory=Memory(columns, items, last[:, columns]))

    @property
    def label_sizes(self) -> tuple[int, ...]:
        """How many codes each column of labels has, 0 for unknown included."""
        return tuple(len(vocabulary) + 1 for vocabulary in self.vocabularies)

    def numerics(self, snapshots: Sequence[Snapshot], items: Sequence[str]) -> tuple[tuple[float, Floats], ...]:
        """Return for each snapshot its moment and the prepared numbers (items, F'), F' as in `transform`.

        An item that a snapshot lacks has every number missing. In a column that is interpolated the item's number at
        the last snapshot before that had one stands in, as it does in `transform` after the last of all: never a later
        one, so that what lies between two numbers is not on the line between them, which only the second makes known.
        Nothing at all is returned where items have no numbers.
        """
        if not self.numbers.columns:
            return ()
        made = []
        last = np.full((len(items), len(self.numbers.columns)), np.nan)
        for snapshot in snapshots:
            given = self._aligned(snapshot, items)
            made.append((snapshot.moment, self.numbers.prepare(given, last)))
            last = self._later(last, given)
        return tuple(made)

    def codes(self, snapshot: Snapshot, items: Sequence[str]) -> Integers:
        """Return the codes (items, L) of what a snapshot says of items, 0 for an item that it lacks."""
        rows = {item: row for row, item in enumerate(snapshot.items)}
        return self._codes([snapshot.labels[rows[item]] if item in rows else None for item in items])

    def transform(
        self,
        numbers: NumberRows,
        labels: Sequence[Sequence[str | None] | None],
        items: Sequence[str] | None = None,
    ) -> tuple[Floats, Integers]:
        """Return the prepared numbers (n, F') and codes (n, L) of n items; F' is F and one for each flag.

        A row that is None: everything is missing. `items` (n) are the keys by which columns that are interpolated
        find the last number that training knew; without them, or for an item that is new, it is the median.
        """
        rows = _numbers(numbers, len(labels), len(self.numbers.columns))
        remembered = np.full_like(rows, np.nan) if items is None else self.memory.recall(items, rows.shape[1])
        return self.numbers.prepare(rows, remembered), self._codes(labels)

    def report(self) -> dict[str, object]:
        """Return what a model version keeps of the preparation: plain values, for each column."""
        labels = [name for name, sort in self.names if sort != "number"]
        return {
            "numbers": self.numbers.report(),
            "labels": {
                name: {"known": len(vocabulary)} for name, vocabulary in zip(labels, self.vocabularies, strict=True)
            },
            "dropped": len(self.dropped),
        }

    def to_bytes(self) -> bytes:
        """Return everything in the format of skops, which unlike a pickle runs no code when it is read."""
        about = {
            "names": self.names,
            "columns": [asdict(column) for column in self.numbers.columns],
            "vocabularies": self.vocabularies,
            "interpolated": self.memory.columns,
            "dropped": self.dropped,
            "limit": self.numbers.limit,
        }
        state = {
            "about": json.dumps(about),
            "sources": self.numbers.sources,
            "predictor": self.numbers.predictor,
            "quantile": self.numbers.quantile,
            "standard": self.numbers.standard,
            "remembered_items": self.memory.items,
            "remembered_numbers": self.memory.numbers,
        }
        return bytes(skops.io.dumps(state))

    @classmethod
    def from_bytes(cls, content: bytes) -> "FeatureMaker":
        """Return what `to_bytes` was called on; ValueError for anything else, be it harmless or not."""
        try:
            state = skops.io.loads(content, trusted=TRUSTED)
            about = json.loads(state["about"])
            if state["quantile"] is not None:  # of models that were stored while it made them normal by itself
                state["quantile"].set_params(output_distribution="uniform")
            numbers = Numbers(
                tuple(Column(**column) for column in about["columns"]),
                state["sources"],
                state["predictor"],
                state["quantile"],
                state["standard"],
                about.get("limit", LIMIT_BEFORE),
            )
            return cls(
                names=tuple((name, sort) for name, sort in about["names"]),
                numbers=numbers,
                vocabularies=tuple(about["vocabularies"]),
                memory=Memory(tuple(about["interpolated"]), state["remembered_items"], state["remembered_numbers"]),
                dropped=tuple(about["dropped"]),
            )
        except (UntrustedTypesFoundException, BadZipFile, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"these are not the features of a model ({error}): train another one, or restore its artefacts"
            ) from error

    def _later(self, last: Times, given: Times) -> Times:
        """Return the last known numbers (n, F) after those of another snapshot; NaN where the column keeps none."""
        numbers = np.full_like(last, np.nan)
        columns = list(self.memory.columns)
        numbers[:, columns] = finite(given[:, columns])
        return np.where(np.isnan(numbers), last, numbers)

    def _aligned(self, snapshot: Snapshot, items: Sequence[str]) -> Times:
        """Return the numbers (items, F) of a snapshot in the order of `items`."""
        width = len(self.numbers.columns)
        rows = {item: row for row, item in enumerate(snapshot.items)}
        missing = len(snapshot.items)  # a row of NaN after the others
        given = np.vstack([_numbers(snapshot.numbers, missing, width), np.full((1, width), np.nan)])
        return given[[rows.get(item, missing) for item in items]]

    def _codes(self, labels: Sequence[Sequence[str | None] | None]) -> Integers:
        nothing = [None] * len(self.vocabularies)
        codes = [
            [
                vocabulary.get(label, 0) if label is not None else 0
                for vocabulary, label in zip(self.vocabularies, row or nothing, strict=True)
            ]
            for row in labels
        ]
        return np.array(codes, dtype=np.int64).reshape(len(labels), len(self.vocabularies))


def arranged(
    wanted: Names, names: Sequence[str], numbers: NumberRows, labels: Sequence[Sequence[str | None] | None]
) -> tuple[Times, Labels]:
    """Return numbers and labels of n items, which were read by `names` (of both), in the order of `wanted`.

    Features go by their names, as columns come and go while models live: what is not wanted is left out, what was not
    read is missing. A row that is None: everything is.
    """
    width = next((len(row) for row in numbers if row is not None), 0)
    of_numbers = _places([name for name, sort in wanted if sort == "number"], names[:width])
    of_labels = _places([name for name, sort in wanted if sort != "number"], names[width:])
    padded = np.pad(_numbers(numbers, len(labels), width), ((0, 0), (0, 1)), constant_values=np.nan)
    nothing = [None] * len(names[width:])
    return padded[:, np.array(of_numbers, dtype=np.int64)], [
        [(*(row or nothing), None)[place] for place in of_labels] for row in labels
    ]


def _places(wanted: Sequence[str], names: Sequence[str]) -> list[int]:
    """Return where each of the wanted names stands; -1, after all of them, if nowhere."""
    return [names.index(name) if name in names else -1 for name in wanted]


def _numbers(numbers: NumberRows, rows: int, width: int) -> Times:
    """Return numbers as an array (rows, width), NaN where there is none."""
    if isinstance(numbers, np.ndarray):
        return np.asarray(numbers, dtype=np.float64).reshape(rows, width)
    nothing = [None] * width
    return np.array([row or nothing for row in numbers], dtype=np.float64).reshape(rows, width)


def _vocabulary(snapshots: Sequence[Snapshot], place: int) -> dict[str, int]:
    labels = {row[place] for snapshot in snapshots for row in snapshot.labels}
    return {label: code for code, label in enumerate(sorted(label for label in labels if label is not None), start=1)}


def _interpolated(numbers: Numbers) -> tuple[int, ...]:
    return tuple(place for place, column in enumerate(numbers.columns) if column.missing == "interpolate")
