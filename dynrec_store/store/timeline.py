"""Reading the past: vectors as of a moment, and the versions of an item."""

from datetime import datetime

from psycopg.rows import kwargs_row

from dynrec_store.results import Drift, Float32, ItemVersion, as_array
from dynrec_store.store.arguments import key
from dynrec_store.store.calls import Calls, Key


class Timeline(Calls):
    """The part of FeatureStore that reads history. `as_of` defaults to now."""

    def item_vector_at(self, recommender: str, item_id: Key, as_of: datetime | None = None) -> Float32 | None:
        """The item's vector, shape (dimension,), that was valid and known at that moment; None: there was none."""
        return as_array(
            self._value("item_vector_at", recommender=recommender, item_id=key("item_id", item_id), as_of=as_of)
        )

    def user_vector_at(self, recommender: str, user_id: Key, as_of: datetime | None = None) -> Float32 | None:
        """The user's vector, shape (dimension,), that was valid and known at that moment; None: there was none."""
        return as_array(
            self._value("user_vector_at", recommender=recommender, user_id=key("user_id", user_id), as_of=as_of)
        )

    def item_history(self, recommender: str, item_id: Key) -> list[ItemVersion]:
        """Every version of an item that retention has kept, oldest first."""
        return self._called(
            kwargs_row(ItemVersion.of_row),
            "item_history",
            {"recommender": recommender, "item_id": key("item_id", item_id)},
        )

    def drift(self, recommender: str, item_id: Key) -> list[Drift]:
        """How far the item's vector moved with each version."""
        return self._rows(Drift, "drift", recommender=recommender, item_id=key("item_id", item_id))
