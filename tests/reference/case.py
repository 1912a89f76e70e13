"""A reference case: numbers computed by the authors' own implementation (see cases/README.md)."""

import json
import os
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(os.environ.get("RIN_REFERENCE_CASES") or Path(__file__).parent / "cases")


def case_files():
    return sorted(FOLDER.glob("*.npz"))


class Case:
    """One archive. It counts what was read of it, so that nothing in a case passes unseen."""

    def __init__(self, path):
        self.path = path
        self.kind = path.stem.split("_")[0]
        with np.load(path, allow_pickle=False) as archive:
            self.arrays = {name: archive[name] for name in archive.files}
        self.config = json.loads(str(self.arrays["config"]))
        self.read = {"config"}

    def __contains__(self, name):
        return name in self.arrays

    def array(self, name):
        self.read.add(name)
        return self.arrays[name]

    def number(self, name):
        return self.array(name).item()

    def flat(self, name):
        """A tensor as it is."""
        return torch.from_numpy(np.array(self.array(name)))

    def data(self, name):
        """Images and clips channels-first, as ours are; sets as they are."""
        value = self.flat(name)
        return value if self.config["kind"] == "tokens" else value.movedim(-1, 1).contiguous()

    def labels(self):
        return self.flat("in/label").long() if "in/label" in self else None

    def variables(self, prefix):
        """The original's variables, or what stands under their names."""
        return {name.removeprefix(prefix): self.array(name) for name in self.arrays if name.startswith(prefix)}

    def names(self, prefix):
        return [name.removeprefix(prefix) for name in self.arrays if name.startswith(prefix)]

    def unread(self):
        return sorted(set(self.arrays) - self.read)
