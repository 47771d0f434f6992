"""The vectors of the texts that a process encoded last.

Batches that are worked on side by side may hold the same new text, and neither finds its vector in the database
before the other has published.
"""

import threading
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

MOST = 8192  # vectors: 12 MB at 384 dimensions

Vector = npt.NDArray[np.float32]


class Recent:
    """A mapping from text to vector that forgets the oldest."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._vectors: dict[str, Vector] = {}

    def known(self, texts: Sequence[str]) -> dict[str, Vector]:
        """The vectors of those of the texts that are remembered."""
        with self._lock:
            return {text: self._vectors[text] for text in texts if text in self._vectors}

    def keep(self, vectors: Mapping[str, Vector]) -> None:
        """Remember vectors."""
        with self._lock:
            self._vectors.update(vectors)
            for text in list(self._vectors)[: max(0, len(self._vectors) - MOST)]:
                del self._vectors[text]
