"""How busy a CUDA device is, by its own driver."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

SAMPLE_SECONDS = 0.1  # the driver looks back over a sixth of a second to a second


@contextmanager
def watched(device: str) -> Iterator[list[float]]:
    """Samples, 0 to 1, of the share of time in which the device computed; none where nobody can say, as of a CPU.

    They are there when the block ends.
    """
    samples: list[float] = []
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(device, samples, over), daemon=True)
    if device.startswith("cuda"):
        watcher.start()
    try:
        yield samples
    finally:
        over.set()
        if watcher.ident is not None:
            watcher.join()


def _watch(device: str, samples: list[float], over: threading.Event) -> None:
    # torch takes seconds to import: the other benchmarks go without
    import torch  # noqa: PLC0415

    while not over.is_set():
        try:
            samples.append(torch.cuda.utilization(device) / 100)
        except (ModuleNotFoundError, RuntimeError):  # no nvidia-ml-py, or a driver that does not answer
            return
        time.sleep(SAMPLE_SECONDS)
