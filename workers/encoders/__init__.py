"""Encoders: a text becomes a content vector.

| file | what it holds |
|---|---|
| base.py | the protocol, unit length, the hash of a text |
| hashing.py | n-grams hashed into buckets; needs no model |
| sentence.py | any sentence-transformers model, on CPU or CUDA |
| short_texts.py | the same model compiled for one or few short texts on a CPU |
| registry.py | from a registered encoder to a loaded one |

Importing this package imports neither torch nor scikit-learn; `load_encoder` does when an encoder needs them.
"""

from workers.encoders.base import Encoder, Vectors, content_hash
from workers.encoders.registry import load_encoder, probe_dimension

__all__ = ["Encoder", "Vectors", "content_hash", "load_encoder", "probe_dimension"]
