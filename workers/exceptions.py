"""Errors of encoders and of training, part of the tree in dynrec_store.exceptions.

DynrecError
├── EncoderError
│   ├── ModelUnavailable       the model cannot be loaded: charge the batch, not its rows
│   │   └── DimensionMismatch  it loads, and its vectors are not as long as was declared
│   ├── DeviceFault            the device is missing or out of memory: charge the batch, not its rows
│   └── EncodingFailed         some texts have no finite vector: charge the rows at `positions`
└── TrainingError              a training killed its process again and again, or failed in another
"""

from collections.abc import Iterable

from dynrec_store.exceptions import DynrecError


class EncoderError(DynrecError):
    """An encoder cannot be had, or cannot encode."""


class ModelUnavailable(EncoderError):  # noqa: N818 - the name says what happened
    """The model is missing or cannot be loaded; the message names it and the remedy."""


class DimensionMismatch(ModelUnavailable):
    """The model's vectors have another length than the encoder was registered with."""


class DeviceFault(EncoderError):  # noqa: N818 - the name says what happened
    """The device is missing, broken, or has too little memory even for one text."""


class EncodingFailed(EncoderError):  # noqa: N818 - the name says what happened
    """The model gave vectors that are not finite for the texts at `positions` (ascending, from 0)."""

    def __init__(self, encoder: str, positions: Iterable[int]) -> None:
        self.positions = tuple(positions)
        super().__init__(
            f"encoder {encoder!r} gave no finite vector for the texts at positions "
            f"{', '.join(map(str, self.positions))}; the model or its weights are damaged if this happens to every text"
        )


class TrainingError(DynrecError):
    """A training killed its process again and again, or failed in another process."""
