"""Columns of names that recur: four bytes for each, and each name once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workers.learning.data import Integers


@dataclass(frozen=True)
class Names:
    """The n-th is `names[numbers[n]]`; names that occur nowhere may be among them."""

    numbers: NDArray[np.int32]
    names: tuple[str, ...]  # distinct

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, rows: Integers) -> "Names":
        return Names(self.numbers[rows], self.names)

    def occurring(self) -> tuple[str, ...]:
        """Return the names that occur, ascending."""
        return tuple(sorted(self.names[number] for number in np.unique(self.numbers).tolist()))

    def places_in(self, names: Sequence[str], otherwise: int = -1) -> Integers:
        """Return for each row the place of its name among `names`, or another number where it is none of them."""
        places = {name: place for place, name in enumerate(names)}
        known = np.array([places.get(name, otherwise) for name in self.names], dtype=np.int64)
        return known[self.numbers]

    def tolist(self) -> list[str]:
        """Return the names, one for each row."""
        return [self.names[number] for number in self.numbers.tolist()]
