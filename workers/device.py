"""Where models compute."""

import torch

from workers.exceptions import DeviceFault


def torch_device(name: str) -> torch.device:
    """Return the device of that name; 'auto' is CUDA if there is one, else the CPU. Raises DeviceFault."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DeviceFault(f"device {name!r} cannot be used, set DYNREC_DEVICE to auto or cpu: {error}") from error
    return device
