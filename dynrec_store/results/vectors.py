"""Vectors on their way from and to the database."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pgvector import Vector

Float32 = NDArray[np.float32]


def as_array(value: object) -> Float32 | None:
    """The vector that a driver returned, with or without pgvector's adapters registered on the connection."""
    if value is None:
        return None
    vector = Vector.from_text(value) if isinstance(value, str) else value
    to_numpy: Callable[[], Any] = getattr(vector, "to_numpy", lambda: vector)
    return np.array(to_numpy(), dtype=np.float32)


def as_text(vector: object) -> str:
    """pgvector's input text for a vector: any one-dimensional sequence of numbers."""
    array = np.asarray(vector, dtype=np.float32)
    if array.ndim != 1:
        raise ValueError(f"a vector has one dimension, this array has the shape {array.shape}")
    return str(Vector(array).to_text())
