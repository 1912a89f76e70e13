"""Where a process of a run computes; there is one process for now."""

import torch


def device() -> torch.device:
    """Where to compute: CUDA, else Apple's Metal, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
