"""How much memory the devices of a worker have left."""

from collections.abc import Iterable
from contextlib import suppress


def device_memory(devices: Iterable[str]) -> dict[str, dict[str, int]]:
    """Bytes by device: `allocated` by this process, `used` by all, `total`."""
    with suppress(RuntimeError):  # the device has failed: its batches say so, and the heart beats on
        return {device: _of_cuda(device) if device.startswith("cuda") else _of_machine() for device in devices}
    return {}


def _of_machine() -> dict[str, int]:
    # of the extra worker, as models are; dispatcher and stream load this file and go without
    import psutil  # noqa: PLC0415

    memory = psutil.virtual_memory()
    return {
        "allocated": psutil.Process().memory_info().rss,
        "used": memory.total - memory.available,
        "total": memory.total,
    }


def _of_cuda(device: str) -> dict[str, int]:
    # a model is on the device, so that torch is loaded; workers without one go without
    import torch  # noqa: PLC0415

    free, total = torch.cuda.mem_get_info(device)
    return {"allocated": torch.cuda.memory_reserved(device), "used": total - free, "total": total}
