"""Encoding a batch of texts so that a bad one takes no other with it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from workers.encoders import Encoder, Vectors
from workers.exceptions import DeviceFault, DimensionMismatch, EncodingFailed, ModelUnavailable


@dataclass(frozen=True)
class Encoded:
    """What became of the texts of a batch: each is in `vectors` or in `errors`."""

    vectors: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)  # text -> (dimension,)
    errors: dict[str, str] = field(default_factory=dict)  # text -> what the model said to it
    calls: int = 0  # of the model
    reused: int = 0  # vectors that another batch had computed already
    waited: float = 0.0  # seconds for others' turns at the model

    def __or__(self, other: "Encoded") -> "Encoded":
        return Encoded(
            self.vectors | other.vectors,
            self.errors | other.errors,
            self.calls + other.calls,
            self.reused + other.reused,
            self.waited + other.waited,
        )


def encode_each(encoder: Encoder, texts: Sequence[str]) -> Encoded:
    """Encode distinct texts. Where the model fails at a batch it is halved until the text at fault stands alone.

    Raises DeviceFault or ModelUnavailable: those are no text's fault.
    """
    if not texts:
        return Encoded()
    try:
        return Encoded(dict(zip(texts, _encode(encoder, texts), strict=True)), calls=1)
    except (DeviceFault, ModelUnavailable):
        raise
    except EncodingFailed as failure:
        bad = {texts[position] for position in failure.positions}
        good = [text for text in texts if text not in bad]
        errors = dict.fromkeys(bad, f"encoder {encoder.name!r} gave no finite vector for this text")
        return Encoded(errors=errors, calls=1) | encode_each(encoder, good)
    except Exception as failure:  # models fail in ways of their own
        if len(texts) == 1 and isinstance(failure, MemoryError):
            raise DeviceFault(f"too little memory for one text of encoder {encoder.name!r}") from failure
        if len(texts) == 1:
            return Encoded(errors={texts[0]: f"{type(failure).__name__}: {failure}"}, calls=1)
        half = len(texts) // 2
        return Encoded(calls=1) | encode_each(encoder, texts[:half]) | encode_each(encoder, texts[half:])


def _encode(encoder: Encoder, texts: Sequence[str]) -> Vectors:
    vectors = encoder.encode(texts)
    if vectors.shape != (len(texts), encoder.dimension):
        raise DimensionMismatch(
            f"encoder {encoder.name!r} of dimension {encoder.dimension} gave an array of shape {vectors.shape} "
            f"for {len(texts)} texts: its model is not the one that was registered, or damaged"
        )
    return vectors
