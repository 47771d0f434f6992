"""A sentence-transformers model with weights of 8 bits, for CPUs."""

import threading
from collections.abc import Sequence

import numpy as np
import torch

from workers.encoders import graph
from workers.encoders.base import Vectors, unit_rows
from workers.encoders.by_tokens import ByTokens
from workers.encoders.sentence import CPU_BATCH, load_model, well_formed
from workers.encoders.tokenizing import Features
from workers.exceptions import DeviceFault, ModelUnavailable


class QuantisedEncoder:
    """A model whose weights are 8-bit integers, and what is multiplied with them as well, batch by batch.

    It computes on the CPU with onnxruntime, wherever else models of the process compute. Its vectors are others than
    the model's own, with a cosine of .985 to .995 to them for MiniLM, and so it is registered as an encoder of its
    own. As a batch shares one scale, the vector of a text depends on its company: by as much again.
    """

    device = "cpu"

    def __init__(self, name: str, by_tokens: ByTokens) -> None:
        self.name = name
        self._by_tokens = by_tokens
        self._computing = threading.Lock()
        self.dimension = int(self.encode([""]).shape[1])

    @classmethod
    def load(cls, name: str) -> "QuantisedEncoder":
        """Load a model as SentenceTransformerEncoder.load does; its quantised graph is made once and kept.

        Raises ModelUnavailable for a model that cannot be compiled, such as one that puts a prompt before texts.
        """
        if not graph.available():
            raise ModelUnavailable(f"model {name!r} in 8 bits needs onnxruntime: pip install onnx onnxruntime")
        model = load_model(name, torch.device("cpu"), torch.float32)
        if ByTokens.of(model) is None:
            raise ModelUnavailable(
                f"model {name!r} cannot be had in 8 bits, as it takes more than token ids and a mask, or a prompt; "
                "register it with the family sentence-transformers"
            )
        try:
            session = graph.session(graph.quantised(model), torch.get_num_threads())
        except Exception as error:  # exporting fails in as many ways as there are models
            raise ModelUnavailable(
                f"model {name!r} cannot be had in 8 bits, register it with the family sentence-transformers: {error}"
            ) from error
        inputs = [node.name for node in session.get_inputs()]

        def compute(features: Features) -> torch.Tensor:
            (vectors,) = session.run(None, {name: features[name].numpy() for name in inputs})
            return torch.from_numpy(vectors)

        return cls(name, ByTokens(model, compute))

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return one vector for each text, float32 (len(texts), dimension), length 1 or exactly zero.

        Raises EncodingFailed for texts whose vectors are not finite, DeviceFault where memory is short.
        """
        if not texts:
            return np.empty((0, self.dimension), dtype=np.float32)
        try:
            with self._computing:
                vectors = self._by_tokens.encode([well_formed(text) for text in texts], CPU_BATCH)
        except MemoryError as error:
            raise DeviceFault(f"too little memory for a batch of encoder {self.name!r}") from error
        return unit_rows(vectors, self.name)
