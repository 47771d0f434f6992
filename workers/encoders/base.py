"""What every encoder promises."""

import hashlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from workers.exceptions import EncodingFailed

Vectors = npt.NDArray[np.float32]  # (texts, dimension)


class Encoder(Protocol):
    """Turns texts into vectors; safe to call from several threads.

    `encode` returns float32 of shape (len(texts), dimension), in the order of the texts. Each row has
    length 1 or is exactly zero, and is finite. The same call gives the same vectors; the same text in
    other company may differ by rounding (cosine >= 0.999).

    Raises EncodingFailed (some texts), DeviceFault (the device).
    """

    @property
    def name(self) -> str:
        """The model, as it was asked for."""

    @property
    def dimension(self) -> int:
        """Length of a vector, 1 to 16000."""

    @property
    def device(self) -> str:
        """Where it computes: cpu, cuda, cuda:1, mps."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return one vector for each text."""


def content_hash(text: str) -> bytes:
    """Return the sha256 of the text in utf-8, 32 bytes, as PostgreSQL's sha256(convert_to(text, 'UTF8')).

    Lone surrogates, which no database text holds, are hashed as they are rather than refused.
    """
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def unit_rows(vectors: npt.NDArray[np.floating], encoder: str) -> Vectors:
    """Return the rows in float32 with length 1; rows of zeros stay.

    Raises EncodingFailed naming the rows that are not finite.
    """
    rows: Vectors = np.asarray(vectors, dtype=np.float32)
    broken = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if broken.size:
        raise EncodingFailed(encoder, broken.tolist())
    # scaling by the largest entry first: the squares of very large or very small entries do not fit into float32
    peaks = np.abs(rows).max(axis=1, keepdims=True, initial=0)
    scaled: Vectors = np.divide(rows, peaks, out=np.zeros_like(rows), where=peaks > 0)
    lengths = np.linalg.norm(scaled, axis=1, keepdims=True)
    np.divide(scaled, lengths, out=scaled, where=lengths > 0)
    return scaled
