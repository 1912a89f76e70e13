"""What a run writes down while it goes: `log.jsonl` and TensorBoard's events.

The log is a function of the configuration alone, so a resumed run's is the uninterrupted one's to the last digit;
rates and times, which are not, go to TensorBoard only.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rin.core.errors import RinError
from rin.core.shapes import Pictures


class Log:
    """The log of a run, opened at a step: what was written after it is taken back."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.path = folder / "log.jsonl"
        self._rewind(step)
        self._file = self.path.open("a", encoding="utf-8")
        self._board = SummaryWriter(folder, purge_step=step + 1)

    def _rewind(self, step: int) -> None:
        """Keeps the whole lines up to a step; a killed process may have left more, the last one torn."""
        kept = [line for line in read_log(self.path) if line["step"] <= step] if step else []
        temporary = self.path.with_suffix(".unfinished")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        temporary.replace(self.path)

    def record(self, record: Mapping[str, Any], rates: Mapping[str, float]) -> None:
        """Writes a line, of at least step, loss and lr; `rates` go to TensorBoard alone.

        Raises:
            RinError: the disk is full or cannot be written.
        """
        try:
            self._file.write(json.dumps(dict(record)) + "\n")
            self._file.flush()
        except OSError as error:
            raise RinError(f"cannot write the log {self.path}: {error}") from error
        for name, value in (_flat(record) | dict(rates)).items():
            self._board.add_scalar(name, value, record["step"])

    def pictures(self, step: int, grid: Pictures) -> None:
        """Shows a grid of samples in TensorBoard (1 c h w)."""
        self._board.add_images("samples", grid[:, :3], step)

    def close(self) -> None:
        """Writes out what is left."""
        self._file.close()
        self._board.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a log, as far as they can be read."""
    lines: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


def _flat(record: Mapping[str, Any]) -> dict[str, float]:
    """Numbers by name, those of a group under group/name."""
    flat: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}/{key}": number for key, number in value.items()}
        elif name != "step":
            flat[name] = value
    return flat
