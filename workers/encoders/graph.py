"""A model of sentence-transformers as a compiled ONNX graph, kept in the user's cache folder."""

import copy
import hashlib
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import platformdirs
import torch
from sentence_transformers import SentenceTransformer

try:
    import onnxruntime  # type: ignore[import-untyped]
except ImportError:  # an optional part
    onnxruntime = None

TEXTS = ["red apple", "a tyre for the car, 16 inches", ""]  # what is traced


def available() -> bool:
    """Say whether onnxruntime is installed."""
    return onnxruntime is not None


def session(graph: Path, threads: int) -> "onnxruntime.InferenceSession":
    """Return a graph that is ready to compute on so many threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def compiled(model: SentenceTransformer) -> Path:
    """Return the file of the compiled model in float32, made if it is not there yet (1-2 s for MiniLM)."""
    return _kept(f"{_fingerprint(model)}.onnx", lambda path: _export(model, path))


def quantised(model: SentenceTransformer) -> Path:
    """Return the file of the compiled model with weights of 8 bits, a quarter as large, made if it is not there yet.

    What is multiplied with them is quantised for each batch.
    """
    # seconds to import, and needed once for each model
    from onnxruntime.quantization import QuantType, quantize_dynamic  # type: ignore[import-untyped]  # noqa: PLC0415

    def make(path: Path) -> None:
        quantize_dynamic(compiled(model), path, weight_type=QuantType.QInt8, per_channel=True)

    return _kept(f"{_fingerprint(model)}.int8.onnx", make)


def _kept(name: str, make: Callable[[Path], None]) -> Path:
    folder = platformdirs.user_cache_path("dynrec") / "encoders"
    path = folder / name
    if not path.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as unfinished:
            draft = Path(unfinished) / path.name
            make(draft)
            draft.replace(path)  # atomic: a second process finds the whole file or none
    return path


class _Tensors(torch.nn.Module):
    """The model as a function of tensors, which is what the exporter takes."""

    def __init__(self, model: SentenceTransformer, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        embedding: torch.Tensor = self.model(dict(zip(self.names, tensors, strict=True)))["sentence_embedding"]
        return embedding  # (B, D)


def _fingerprint(model: SentenceTransformer) -> str:
    """Return a hash of everything that the graph depends on: structure, weights and versions."""
    config = model.transformers_model.config if model.transformers_model else None
    digest = hashlib.sha256(f"{torch.__version__} {onnxruntime.__version__} {model!r} {config}".encode())
    for name, weights in model.state_dict().items():
        digest.update(name.encode())
        digest.update(weights.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _export(model: SentenceTransformer, path: Path) -> None:
    features: dict[str, Any] = model.preprocess(TEXTS)
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
