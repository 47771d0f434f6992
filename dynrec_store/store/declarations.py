"""Declaring recommenders over the application's tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from dynrec_store.results import Alteration, Declared
from dynrec_store.store.arguments import listed
from dynrec_store.store.calls import Calls


class Declarations(Calls):
    """The part of FeatureStore that declares. Arguments that are None take the default of the SQL function."""

    def create_recommender(
        self,
        name: str,
        items: str,
        *,
        item_key: str | None = None,
        text_columns: Sequence[str] = (),
        numeric_columns: Sequence[str] = (),
        categorical_columns: Sequence[str] = (),
        interactions: str | None = None,
        user_column: str | None = None,
        item_column: str | None = None,
        time_column: str | None = None,
        kind_column: str | None = None,
        value_column: str | None = None,
        kinds: Mapping[str, Mapping[str, object]] | None = None,
        encoder: str | None = None,
        vector_column: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Declared:
        """Declare a recommender over a table of items and, optionally, one of interactions; queues the backfill.

        `items` and `interactions` are tables (`schema.table`). `item_key` defaults to the primary key, the columns of
        interactions to user_id, item_id and occurred_at. `kinds` gives weights and half-lives:
        `{"purchase": {"weight": 1, "half_life": "30 days"}, "return": {"weight": -1}}`. `encoder` is a registered
        encoder (default all-MiniLM-L6-v2); `vector_column` adopts vectors that the items have already. `options`:
        half_life, exclude_seen, trending_half_life, retention, text_search_config, max_attempts.

        Raises InvalidArgumentError naming the argument that will not do, UnknownNameError for a table or column.
        """
        return self._row(
            Declared,
            "create_recommender",
            name=name,
            items=items,
            item_key=item_key,
            text_columns=listed("text_columns", text_columns),
            numeric_columns=listed("numeric_columns", numeric_columns),
            categorical_columns=listed("categorical_columns", categorical_columns),
            interactions=interactions,
            user_column=user_column,
            item_column=item_column,
            time_column=time_column,
            kind_column=kind_column,
            value_column=value_column,
            kinds=kinds,
            encoder=encoder,
            vector_column=vector_column,
            options=options,
        )

    def alter_recommender(
        self,
        name: str,
        *,
        text_columns: Sequence[str] | None = None,
        numeric_columns: Sequence[str] | None = None,
        categorical_columns: Sequence[str] | None = None,
        kinds: Mapping[str, Mapping[str, object]] | None = None,
        options: Mapping[str, Any] | None = None,
        dry_run: bool = False,
    ) -> Alteration:
        """Change what is given, re-install missing triggers and queue what became outdated; `dry_run` only counts."""
        return self._row(
            Alteration,
            "alter_recommender",
            name=name,
            text_columns=_listed("text_columns", text_columns),
            numeric_columns=_listed("numeric_columns", numeric_columns),
            categorical_columns=_listed("categorical_columns", categorical_columns),
            kinds=kinds,
            options=options,
            dry_run=dry_run,
        )

    def drop_recommender(self, name: str) -> None:
        """Remove a recommender with its triggers, vectors, history and queue; the application's tables stay."""
        self._value("drop_recommender", name=name)

    def register_encoder(self, name: str, *, family: str, model: str, dimension: int) -> None:
        """Make an encoder known; `dynrec encoder add` finds the dimension (numbers in a vector, 1 to 2000) itself."""
        self._value("register_encoder", name=name, family=family, model=model, dimension=dimension)


def _listed(name: str, columns: Sequence[str] | None) -> list[object] | None:
    return None if columns is None else listed(name, columns)
