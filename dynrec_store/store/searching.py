# ruff: noqa: A002 - the argument is called filter in SQL, and so it is here
"""Searching items by text and by vector."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from numpy.typing import ArrayLike

from dynrec_store.exceptions import InvalidArgumentError
from dynrec_store.extras import load_extra, needs_extra
from dynrec_store.queue import Encoding
from dynrec_store.results import Recommendation
from dynrec_store.settings import Settings, load_settings
from dynrec_store.store.arguments import keys, vector_text
from dynrec_store.store.calls import Calls, Key

Encode = Callable[[Encoding, str], ArrayLike]  # the vector, shape (dimension,), that the encoder makes of a text


class Searching(Calls):
    """The part of FeatureStore that searches."""

    _encode: Encode

    def search(
        self,
        recommender: str,
        text: str | None = None,
        *,
        query_vector: ArrayLike | None = None,
        text_only: bool = False,
        k: int = 10,
        filter: str | None = None,
        filter_args: Mapping[str, Any] | None = None,
        exclude_items: Iterable[Key] = (),
    ) -> list[Recommendation]:
        """Up to k items for a text (web-search syntax), by meaning and by words, fused by reciprocal ranks.

        The meaning comes from `query_vector`, shape (dimension,), or else from the recommender's encoder, which the
        store's `encode` or the extra [worker] provides; ConfigurationError if neither is there. `text_only` asks for
        words alone. The first call takes seconds where a model is loaded. `filter`, `filter_args` and `exclude_items`
        are those of `recommend`.
        """
        if query_vector is None and text is not None and not text_only:
            query_vector = self._vector_of(recommender, text)
        return self._rows(
            Recommendation,
            "search",
            recommender=recommender,
            query=text,
            query_vector=None if query_vector is None else vector_text("query_vector", query_vector),
            k=k,
            filter=filter,
            filter_args=filter_args,
            exclude_items=keys("exclude_items", exclude_items),
        )

    def _vector_of(self, recommender: str, text: str) -> ArrayLike:
        encoding = self._row(Encoding, "_recommender_encoder", recommender=recommender)
        if encoding.adopted:
            raise InvalidArgumentError(
                f"the vectors of recommender {recommender!r} were not made by an encoder of dynrec_store",
                hint="Give the query_vector that the model behind its vector_column makes of the text, or text_only.",
            )
        return self._encode(encoding, text)


def worker_encode(settings: Settings | None = None) -> Encode:
    """Encode as the workers do, with the model loaded on the first call; ConfigurationError without extra [worker]."""

    def encode(encoding: Encoding, text: str) -> ArrayLike:
        with needs_extra("worker"):
            load_encoder = load_extra("workers.encoders:load_encoder", "worker")
            loaded = load_encoder(encoding.family, encoding.model, encoding.dimension, settings or load_settings())
        vector: ArrayLike = loaded.encode([text])[0]
        return vector

    return encode
