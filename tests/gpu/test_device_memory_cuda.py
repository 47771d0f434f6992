"""The memory of a CUDA device as a worker reports it."""

import pytest

torch = pytest.importorskip("torch", reason="needs the extra [worker]")

from workers.device_memory import device_memory  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_what_is_allocated_shows() -> None:
    held = torch.zeros(256 * 2**20, dtype=torch.uint8, device="cuda:0")
    memory = device_memory(["cpu", "cuda:0"])
    assert memory.keys() == {"cpu", "cuda:0"}
    assert held.numel() <= memory["cuda:0"]["allocated"] <= memory["cuda:0"]["used"] <= memory["cuda:0"]["total"]
