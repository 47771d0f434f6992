"""The fast way for one or few short texts on a CPU: the same model as a compiled ONNX graph.

With a handful of tokens torch spends its time on repacking weights in every call, which onnxruntime does
once. One product title, one core: 3.6 ms against 6.5 ms in bfloat16 and 10.5 ms in float32 with torch;
from about 64 tokens on torch in bfloat16 is ahead.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import structlog
from sentence_transformers import SentenceTransformer

from workers.encoders import graph
from workers.encoders.base import Vectors, unit_rows

LONGEST = 250  # characters with padding, about 64 tokens
LARGEST_MODEL = 100_000_000  # parameters; beyond that float32 weights cost more time and memory than they save
# what a graph is checked with before it is trusted: nothing, alone, padded, long
SAMPLES = (
    [""],
    ["red apple"],
    ["red apple", "a tyre for the car, 16 inches", ""],
    ["a description " * 60],
)

log = structlog.get_logger(__name__)


class ShortTexts:
    """A compiled copy of a model, in float32 on one core, for inputs that `suits` accepts."""

    def __init__(self, model: SentenceTransformer, compiled: Path) -> None:
        self._model = model
        # two threads gain a quarter, and spin through five times the CPU time, next to the database
        self._session = graph.session(compiled, threads=1)
        self._inputs = [node.name for node in self._session.get_inputs()]

    @classmethod
    def compile(cls, model: SentenceTransformer) -> "ShortTexts | None":
        """Return the compiled model, or None where torch has to serve (the reason is logged).

        The graph is as large as the model in float32.
        """
        if not graph.available():  # an optional part: torch does the same, slower
            log.info("short_texts_use_torch", reason="onnxruntime is missing", remedy="pip install onnx onnxruntime")
            return None
        if not _is_small_transformer(model):
            return None
        try:
            return cls(model, graph.compiled(model))._checked()
        except Exception as error:  # noqa: BLE001 - exporting fails in as many ways as there are models
            log.warning("short_texts_use_torch", reason=str(error))
            return None

    def suits(self, texts: Sequence[str]) -> bool:
        """Say whether the texts are so short and few that this is faster than torch."""
        return len(texts) * max(map(len, texts)) <= LONGEST

    def encode(self, texts: list[str]) -> Vectors:
        """Return the model's vectors, float32 (len(texts), dimension), of any length."""
        features = self._model.preprocess(texts)
        (vectors,) = self._session.run(None, {name: features[name].numpy() for name in self._inputs})
        return np.asarray(vectors, dtype=np.float32)

    def _checked(self) -> "ShortTexts":
        for texts in SAMPLES:
            ours = unit_rows(self.encode(texts), "onnx")
            theirs = unit_rows(self._model.encode(texts, show_progress_bar=False), "torch")
            cosine = float((ours * theirs).sum(axis=1).min())
            if cosine < 0.999:
                raise ValueError(f"the compiled model differs from the original: cosine {cosine:.4f} for {texts!r}")
        return self


def _is_small_transformer(model: SentenceTransformer) -> bool:
    # a prompt would have to be left out of the pooling, which the graph does not know about
    plain = model.transformers_model is not None and model.default_prompt_name is None
    return plain and sum(weights.numel() for weights in model.parameters()) <= LARGEST_MODEL
