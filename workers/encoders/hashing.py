"""Texts as hashed character n-grams: no model, no download, the same vectors everywhere and always."""

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import HashingVectorizer

from workers.encoders.base import Vectors, unit_rows


class HashingEncoder:
    """Signed counts of character 3- and 4-grams inside words, hashed into `dimension` buckets, length 1.

    A text without any letter or sign, such as '', gives the zero vector. MurmurHash3 (scikit-learn's
    HashingVectorizer) needs no state, so vectors are equal bit by bit across processes.

    Character n-grams rather than words: among 3,000 product titles and 256 buckets a title shares .49 of
    its ten nearest neighbours with MiniLM's, against .44 for words and .38 for words and word pairs.
    """

    def __init__(self, dimension: int = 256) -> None:
        self.name = "hashing"
        self.dimension = dimension
        self.device = "cpu"
        self._vectorizer = HashingVectorizer(
            n_features=dimension, analyzer="char_wb", ngram_range=(3, 4), norm="l2", dtype=np.float32
        )

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return one vector for each text, float32 (len(texts), dimension)."""
        if not texts:
            return np.empty((0, self.dimension), dtype=np.float32)
        return unit_rows(self._vectorizer.transform(texts).toarray(), self.name)
