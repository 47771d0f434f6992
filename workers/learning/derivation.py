"""Vectors of items as workers make them: from a model at rest in the database, and rows that were read for it."""

from collections.abc import Mapping, Sequence

import numpy as np

from dynrec_store.models import DerivedRow, Floats
from workers.exceptions import ModelUnavailable
from workers.learning.artefact import from_artefacts
from workers.learning.features import FeatureMaker, arranged
from workers.learning.serving import ItemServer
from workers.learning.source import FEATURES


class ItemVectors:
    """A loaded model. Safe to call from several threads."""

    def __init__(self, model: int, files: Mapping[str, bytes]) -> None:
        """Raise ModelUnavailable if the files are not those of a model."""
        try:
            self._features = FeatureMaker.from_bytes(files[FEATURES])
            fitted = from_artefacts(dict(files))
            self._server = ItemServer(fitted)
            self._code_sizes = np.array(fitted.shape.code_sizes, dtype=np.int64)
        except (KeyError, ValueError, RuntimeError, TypeError) as error:
            raise ModelUnavailable(
                f"the artefacts of model version {model} cannot be loaded ({error}): train another one"
            ) from error

    def derive(self, rows: Sequence[DerivedRow]) -> tuple[list[Floats], list[Floats]]:
        """Embeddings (D,) of items that have a content vector, and their contexts, all heads of an item in a row."""
        content = np.stack([np.asarray(row.embedding.to_numpy()) for row in rows if row.embedding is not None])
        numbers, labels = arranged(
            self._features.names, rows[0].names or [], [row.numbers for row in rows], [row.labels for row in rows]
        )
        numerics, codes = self._features.transform(numbers, labels, [row.item_id for row in rows])
        codes = np.where(codes < self._code_sizes, codes, 0)  # labels that no item had in training are unknown
        derived = self._server.derive(
            [row.item_id for row in rows], content, codes, numerics if numerics.size else None
        )
        contexts = [head[row] for row in range(len(rows)) for head in derived.contexts]
        return list(derived.embeddings), contexts
