"""Batches by tokens: a model over texts that are put together by how long they are to the model.

What a batch is padded with is computed like its texts. SentenceTransformer.encode sorts by characters and cuts after a
fixed number of texts; short titles among descriptions cost it a tenth more tokens than they have, and in the small
pieces in which a worker encodes a quarter more. Here all are tokenized first, sorted by tokens, and a batch ends where
padding would cost more than another call.

To a CUDA device the batches are handed over one after the other without waiting; their vectors come back together.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import structlog
import torch
from sentence_transformers import SentenceTransformer

from workers.encoders.base import Vectors
from workers.encoders.tokenizing import Features, tokenizing

TOKENIZED = 4096  # texts at once, so that one long text does not pad a million
# tokens that may be padded before another call is cheaper: with MiniLM one costs as much as 65 tokens in one thread
PADDING = {"cpu": 96}
PADDING_ELSEWHERE = 4096
ROUNDING = 0.03  # of the largest component may lie between two ways to batch the same texts
SAMPLES = ["a tyre for the car, 16 inches", "", "a description " * 60, "red apple"]

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Batch:
    """Part of a list of texts."""

    texts: torch.Tensor  # (B,): their positions
    tokens: int  # of the longest of them


Compute = Callable[[Features], torch.Tensor]  # the vectors of a batch


class ByTokens:
    """A model that takes token ids and a mask, with padding behind the texts."""

    def __init__(self, model: SentenceTransformer, compute: Compute) -> None:
        self._device = model.device
        self._tokenize = tokenizing(model)
        self._compute = compute
        self._tokenizing = threading.Lock()  # the tokenizer is not made for threads
        self._computing = threading.Lock()  # the device's memory is reckoned for one

    @classmethod
    def of(cls, model: SentenceTransformer) -> "ByTokens | None":
        """Return the model in batches by tokens, or None where only its own `encode` knows how to call it."""
        if model.transformers_model is None or model.default_prompt_name is not None or model.truncate_dim is not None:
            return None
        features = model.preprocess(SAMPLES[:2])
        mask = features.get("attention_mask")
        tensors = [value for value in features.values() if isinstance(value, torch.Tensor)]
        if mask is None or mask.shape != (2, int(mask[0].sum())) or any(t.shape != mask.shape for t in tensors):
            return None
        candidate = cls(model, lambda features: model(features)["sentence_embedding"])
        ours, theirs = candidate.encode(SAMPLES, 1024), model.encode(SAMPLES, show_progress_bar=False)
        if not np.allclose(ours, theirs, atol=ROUNDING * float(np.nanmax(np.abs(theirs))), equal_nan=True):
            log.warning("batches_by_tokens_differ", remedy="none is needed: the model encodes in its own batches")
            return None
        return candidate

    def encode(self, texts: Sequence[str], largest: int) -> Vectors:
        """Return the model's vectors, float32 (len(texts), dimension), of any length.

        `largest` is the number of tokens in a batch, its padding included; a text that is longer comes alone.
        """
        parts = [self._encode(list(texts[i : i + TOKENIZED]), largest) for i in range(0, len(texts), TOKENIZED)]
        return np.concatenate(parts)

    def _encode(self, texts: list[str], largest: int) -> Vectors:
        with self._tokenizing:
            features = self._tokenize(texts)
        padding = PADDING.get(self._device.type, PADDING_ELSEWHERE)
        cut = batches(features["attention_mask"].sum(dim=1).clamp(min=1), largest, padding)
        with self._computing, torch.inference_mode():
            computed = [self._compute(_part(features, batch, self._device)) for batch in cut]
            vectors = torch.cat(computed).float().cpu().numpy()
        ordered = np.empty_like(vectors)
        ordered[torch.cat([batch.texts for batch in cut]).numpy()] = vectors
        return ordered


def batches(tokens: torch.Tensor, largest: int, padding: int) -> list[Batch]:
    """Divide texts by their number of `tokens`, (n,), longest first.

    A batch has at most `largest` tokens, or one text, and at most `padding` of them stand for nothing.
    """
    lengths, order = tokens.sort(descending=True, stable=True)
    starts, padded = [0], 0
    for position, length in enumerate(lengths.tolist()):
        longest = int(lengths[starts[-1]])
        members = position - starts[-1]
        if members and ((members + 1) * longest > largest or padded + longest - length > padding):
            starts.append(position)
            padded, longest = 0, length
        padded += longest - length
    return [
        Batch(order[start:end], int(lengths[start]))
        for start, end in zip(starts, [*starts[1:], len(lengths)], strict=True)
    ]


def _part(features: Features, batch: Batch, device: torch.device) -> Features:
    """Return what the model takes for one batch, without the padding of the others."""
    return {
        name: value[batch.texts, : batch.tokens].to(device, non_blocking=True)
        if isinstance(value, torch.Tensor)
        else value
        for name, value in features.items()
    }
