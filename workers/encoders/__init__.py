"""Encoders: a text becomes a content vector.

| file | what it holds |
|---|---|
| base.py | the protocol, unit length, the hash of a text |
| hashing.py | n-grams hashed into buckets; needs no model |
| sentence.py | any sentence-transformers model, on CPU or CUDA |
| short_texts.py | the same model compiled for one or few short texts on a CPU |
| registry.py | from a registered encoder to a loaded one |

Importing this package does not import torch; `load_encoder` does when a model needs it.
"""

from workers.encoders.base import Encoder, Vectors, content_hash
from workers.encoders.hashing import HashingEncoder
from workers.encoders.registry import load_encoder, probe_dimension

__all__ = ["Encoder", "HashingEncoder", "Vectors", "content_hash", "load_encoder", "probe_dimension"]
