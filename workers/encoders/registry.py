"""From an encoder as it is registered (family, model, dimension) to one that is loaded."""

import functools
import threading

from dynrec_store.settings import Settings
from workers.encoders.base import Encoder
from workers.exceptions import DimensionMismatch, ModelUnavailable

_loading = threading.Lock()


def load_encoder(family: str, model: str, dimension: int, settings: Settings) -> Encoder:
    """Return the encoder, loaded once per process however many threads ask.

    `family` is 'sentence-transformers', 'sentence-transformers-int8' or 'hashing', `model` a name or a path ('' for
    hashing).

    Raises ModelUnavailable, DimensionMismatch or DeviceFault; the next call tries again.
    """
    with _loading:
        encoder = _load(family, model, dimension, settings.device, settings.precision)
    if encoder.dimension != dimension:
        raise DimensionMismatch(
            f"model {model!r} gives vectors of {encoder.dimension} dimensions, and the encoder was registered with "
            f"{dimension}; register it under a new name with dimension {encoder.dimension}"
        )
    return encoder


def probe_dimension(model: str) -> int:
    """Return the length of the vectors of a sentence-transformers model, by loading it on the CPU.

    Raises ModelUnavailable.
    """
    return _load_sentence_transformer(model, "cpu", "float32").dimension


@functools.cache
def _load(family: str, model: str, dimension: int, device: str, precision: str) -> Encoder:
    # imported here, because the dispatcher has neither scikit-learn nor torch
    if family == "hashing":
        from workers.encoders.hashing import HashingEncoder  # noqa: PLC0415

        return HashingEncoder(dimension)
    if family == "sentence-transformers":
        return _load_sentence_transformer(model, device, precision)
    if family == "sentence-transformers-int8":
        from workers.encoders.quantised import QuantisedEncoder  # noqa: PLC0415

        return QuantisedEncoder.load(model)
    raise ModelUnavailable(
        f"encoder family {family!r} is unknown; there are 'sentence-transformers', 'sentence-transformers-int8' and "
        "'hashing'"
    )


def _load_sentence_transformer(model: str, device: str, precision: str) -> Encoder:
    # torch takes seconds and hundreds of megabytes: the dispatcher and users of the hashing family go without
    from workers.encoders.sentence import SentenceTransformerEncoder  # noqa: PLC0415

    return SentenceTransformerEncoder.load(model, device=device, precision=precision)
