"""The fast way for one or few short texts on a CPU: the same model as a compiled ONNX graph.

With a handful of tokens torch spends its time on repacking weights in every call, which onnxruntime does
once. One product title, one core: 3.6 ms against 6.5 ms in bfloat16 and 10.5 ms in float32 with torch;
from about 64 tokens on torch in bfloat16 is ahead.
"""

import copy
import hashlib
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import structlog
import torch
from sentence_transformers import SentenceTransformer

from workers.encoders.base import Vectors, unit_rows

try:
    import onnxruntime  # type: ignore[import-untyped]
except ImportError:  # an optional part: torch does the same, slower
    onnxruntime = None

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

    def __init__(self, model: SentenceTransformer, graph: Path) -> None:
        options = onnxruntime.SessionOptions()
        # two threads gain a quarter, and spin through five times the CPU time, next to the database
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._model = model
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._inputs = [node.name for node in self._session.get_inputs()]

    @classmethod
    def compile(cls, model: SentenceTransformer) -> "ShortTexts | None":
        """Return the compiled model, or None where torch has to serve (the reason is logged).

        The graph, as large as the model in float32, is made once (1-2 s for MiniLM) and kept in the user's
        cache folder.
        """
        if onnxruntime is None:
            log.info("short_texts_use_torch", reason="onnxruntime is missing", remedy="pip install onnx onnxruntime")
            return None
        if not _is_small_transformer(model):
            return None
        try:
            return cls(model, _graph(model))._checked()
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


class _Tensors(torch.nn.Module):
    """The model as a function of tensors, which is what the exporter takes."""

    def __init__(self, model: SentenceTransformer, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        embedding: torch.Tensor = self.model(dict(zip(self.names, tensors, strict=True)))["sentence_embedding"]
        return embedding  # (B, D)


def _is_small_transformer(model: SentenceTransformer) -> bool:
    # a prompt would have to be left out of the pooling, which the graph does not know about
    plain = model.transformers_model is not None and model.default_prompt_name is None
    return plain and sum(weights.numel() for weights in model.parameters()) <= LARGEST_MODEL


def _graph(model: SentenceTransformer) -> Path:
    """Return the file of the compiled model, made if it is not there yet."""
    folder = platformdirs.user_cache_path("dynrec") / "encoders"
    path = folder / f"{_fingerprint(model)}.onnx"
    if not path.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as unfinished:
            draft = Path(unfinished) / path.name
            _export(model, draft)
            draft.replace(path)  # atomic: a second process finds the whole file or none
    return path


def _fingerprint(model: SentenceTransformer) -> str:
    """Return a hash of everything that the graph depends on: structure, weights and versions."""
    config = model.transformers_model.config if model.transformers_model else None
    digest = hashlib.sha256(f"{torch.__version__} {onnxruntime.__version__} {model!r} {config}".encode())
    for name, weights in model.state_dict().items():
        digest.update(name.encode())
        digest.update(weights.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _export(model: SentenceTransformer, path: Path) -> None:
    features: dict[str, Any] = model.preprocess(SAMPLES[2])
    tensors = {name: value for name, value in features.items() if isinstance(value, torch.Tensor)}
    with warnings.catch_warnings():
        # the exporter by tracing is announced to go one day; its successor takes six times as long, needs
        # another package, and its graphs are no faster. The tracer's own doubts are settled by the samples.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Tensors(copy.deepcopy(model).float(), list(tensors)),
            tuple(tensors.values()),
            path,
            input_names=list(tensors),
            output_names=["embedding"],
            dynamic_axes={name: {0: "text", 1: "token"} for name in tensors},
            dynamo=False,
        )
