"""Updates that were not made because their loss or gradient was not finite."""

import torch
from jaxtyping import Float
from torch import Tensor


class Skips:
    """Counts skipped updates where they happen, on the device, without waiting for it.

    On a CUDA device the host sees the counts when they have arrived, a few updates late.
    """

    def __init__(self, device: torch.device) -> None:
        self._counts = torch.zeros(2, device=device)  # in all, in a row
        lags = device.type == "cuda"
        self._seen = torch.zeros(2, pin_memory=True) if lags else self._counts
        self._before_line = 0

    def add(self, skipped: Float[Tensor, ""]) -> None:
        """Counts an update: 1 if it was skipped, else 0."""
        self._counts += skipped
        self._counts[1] *= skipped
        if self._seen is not self._counts:
            self._seen.copy_(self._counts, non_blocking=True)

    def in_a_row(self) -> int:
        """Updates skipped one after the other up to now, as far as the host has heard."""
        return int(self._seen[1])

    def in_all(self) -> int:
        """Updates skipped since the run began; waits for the device."""
        return int(self._counts[0])

    def since_line(self) -> int:
        """Those since the last line of the log; waits for the device."""
        return self.in_all() - self._before_line

    def line(self) -> None:
        """A line of the log is written."""
        self._before_line = self.in_all()

    def state(self) -> list[int]:
        """What `restore` puts back."""
        return [*(int(count) for count in self._counts.tolist()), self._before_line]

    def restore(self, state: list[int]) -> None:
        """Goes on counting from a state."""
        *counts, self._before_line = state
        self._counts.copy_(torch.tensor(counts, dtype=torch.float32))


def finite_or_none(number: Float[Tensor, ""]) -> float | None:
    """A number as JSON has it."""
    return number.item() if number.isfinite() else None
