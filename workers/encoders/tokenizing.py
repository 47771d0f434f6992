"""Token ids of many texts.

A tokenizer of transformers makes lists of Python numbers, padded, for ids, mask and types, from each of which comes a
tensor: for texts of 200 words that takes as long as tokenizing them in one thread, and far longer than in many. Here
come only the ids, as they are.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

Features = dict[str, Any]  # what a model takes: input_ids, attention_mask, …, each (texts, tokens), and words
Tokenize = Callable[[Sequence[str]], Features]
KNOWN = {"input_ids", "attention_mask", "token_type_ids"}
SAMPLES = ["  A tyre for the Car, 16 inches ", "", "a description " * 600, "Ünïcode 🍎 \ud7ff\n\ttabs"]


def tokenizing(model: SentenceTransformer) -> Tokenize:
    """Return what makes of texts what `model.preprocess` makes of them, or that itself where nothing is faster."""
    ours = _of_ids_alone(model)
    if ours is not None and _same(ours(SAMPLES), model.preprocess(SAMPLES)):
        return ours
    return lambda texts: model.preprocess(list(texts))


def _of_ids_alone(model: SentenceTransformer) -> Tokenize | None:
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    pattern = model.preprocess(["a"])
    tensors = {name for name, value in pattern.items() if isinstance(value, torch.Tensor)}
    if not isinstance(backend, Tokenizer) or not {"input_ids", "attention_mask"} <= tensors <= KNOWN:
        return None
    own = Tokenizer.from_str(backend.to_str())  # whose settings nobody else changes
    own.no_padding()
    if model.max_seq_length is not None:
        own.enable_truncation(model.max_seq_length)
    words = {name: value for name, value in pattern.items() if name not in tensors}
    pad = model.tokenizer.pad_token_id or 0

    def tokenize(texts: Sequence[str]) -> Features:
        ids = [encoding.ids for encoding in own.encode_batch_fast(list(texts))]
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        mask = np.arange(lengths.max(initial=0)) < lengths[:, None]
        padded = np.full(mask.shape, pad, np.int64)
        padded[mask] = np.fromiter(chain.from_iterable(ids), np.int64, int(lengths.sum()))
        made = {"input_ids": padded, "attention_mask": mask.astype(np.int64), "token_type_ids": np.zeros_like(padded)}
        return words | {name: torch.from_numpy(value) for name, value in made.items() if name in tensors}

    return tokenize


def _same(ours: Features, theirs: Features) -> bool:
    if ours.keys() != theirs.keys():
        return False
    return all(torch.equal(ours[n], v) if isinstance(v, torch.Tensor) else ours[n] == v for n, v in theirs.items())
