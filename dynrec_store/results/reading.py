"""What reading returns: lists, explanations, versions of items."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from dynrec_store.results.vectors import Float32, as_array


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A row of a list."""

    item_id: str  # the item's key as text
    rank: int  # 1, 2, … in the order of the list
    score: float  # higher is better; comparable within one list only
    source: str  # the path that made the row: personal, session, similar, search, repeat, trending or fallback
    model_version: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """One past interaction's share in an item's score for a user."""

    because_item_id: str | None  # the item of that interaction
    kind: str | None  # of that interaction
    occurred_at: datetime | None
    weight: float | None  # after decay
    similarity: float | None  # cosine of the two items, -1 to 1
    contribution: float | None  # share of the score
    reason: str  # the same as a sentence


@dataclass(frozen=True, slots=True, eq=False)
class ItemVersion:
    """A version of an item: what its source row said, and its vector. Without `eq`, as arrays have no single truth."""

    version: int  # 1 is the oldest
    valid_from: datetime  # when true in the world …
    valid_to: datetime | None  # … and until when; None: still
    created_at: datetime  # when stored …
    replaced_at: datetime | None  # … and when replaced; None: not yet
    embedding: Float32 | None  # (dimension,)
    content_hash: str | None  # sha256 of the text that the encoder saw, in hexadecimal
    features: dict[str, Any] | None  # numeric and categorical columns
    is_current: bool

    @classmethod
    def of_row(cls, embedding: object, **columns: Any) -> Self:  # noqa: ANN401 - as the fields say
        """The version that a row of dynrec.item_history holds."""
        return cls(embedding=as_array(embedding), **columns)


@dataclass(frozen=True, slots=True)
class Drift:
    """How far an item's vector moved from the version before."""

    version: int
    valid_from: datetime
    cosine_distance: float | None  # 0 to 2; None for the first version
