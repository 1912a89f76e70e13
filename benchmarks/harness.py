"""How everything here is measured: sides take turns in one process, and the median of each is what counts.

Each result is one line of JSON: what was measured, on which machine, with which versions, and every side's figures.
"""

import ctypes
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from rin.core.compute import autocast_to, uses_bfloat16

Step = Callable[[], object]
"""One timed unit of work."""

PACKAGES = ("torch", "numpy", "rin-pytorch", "diffusers", "einops")


@dataclass(kw_only=True)
class Bench:
    """Where results go, on which device, and how large everything is.

    Args:
        device: where to compute.
        full: the presets' own sizes, for a GPU; otherwise sizes for a CPU in minutes.
        path: the file that results are appended to.
        seconds: how long each comparison may take turns, beyond its warm-up.
        beside: another tree of this project, which `loading` reads sets beside.
        presets: of those that a benchmark goes through, the only ones to measure; all if empty.
    """

    device: torch.device
    full: bool
    path: Path
    seconds: float = 6.0
    presets: tuple[str, ...] = ()
    beside: Path | None = None
    _rates: dict[torch.dtype, float] = field(default_factory=dict)

    def record(self, benchmark: str, **figures: Any) -> None:
        """Appends a result and shows it."""
        line = {"benchmark": benchmark, **figures, "machine": machine(self.device), "versions": versions()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(benchmark, json.dumps(figures), flush=True)

    def interleave(self, sides: Mapping[str, Step], min_rounds: int = 5) -> dict[str, float]:
        """The median seconds of each side, all of them taking turns.

        Two warm-up calls each come first; then rounds until `seconds` are spent, at least `min_rounds` of them.
        """
        for step in sides.values():
            step(), step()
        times: dict[str, list[float]] = {name: [] for name in sides}
        begun = time.perf_counter()
        while len(times[next(iter(sides))]) < min_rounds or time.perf_counter() - begun < self.seconds:
            for name, step in sides.items():
                times[name].append(timed(step, self.device))
        return {name: statistics.median(seconds) for name, seconds in times.items()}

    def peak_memory(self, step: Step) -> int:
        """Bytes that a step needs at its peak beyond what is held before it.

        On CUDA the allocator's own count. On a CPU the resident set's high-water mark, reset before the step (Linux
        alone; elsewhere 0), after freed memory was given back; so it is right to within some MiB.
        """
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            step()
            torch.cuda.synchronize()
            return torch.cuda.max_memory_allocated() - before
        before = _resident(reset=True)
        step()
        return max(_resident() - before, 0)

    def matmul_rate(self, dtype: torch.dtype = torch.float32) -> float:
        """The machine's own rate in operations a second: the best of `torch.mm` and oneDNN at three sizes."""
        if dtype not in self._rates:
            self._rates[dtype] = max(rate for rates in matmul_rates(self.device, dtype).values() for rate in rates)
        return self._rates[dtype]


def timed(step: Step, device: torch.device) -> float:
    """Seconds that a step takes, until the device has done it."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def autocast(device: torch.device) -> AbstractContextManager[Any]:
    """The precision that the trainer takes by itself."""
    return autocast_to(uses_bfloat16("auto", device), device)


def matmul_rates(device: torch.device, dtype: torch.dtype) -> dict[str, list[float]]:
    """Operations a second of square matrix products through each library, at sizes that fill the device."""
    rates: dict[str, list[float]] = {}
    for size in (4096, 8192, 16384) if device.type == "cuda" else (512, 1024, 2048):
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        products: dict[str, Step] = {"torch.mm": lambda a=a, b=b: torch.mm(a, b)}
        if device.type == "cpu" and torch.backends.mkldnn.is_available() and dtype == torch.float32:
            onednn = torch.ops.mkldnn._linear_pointwise.default
            products["oneDNN"] = lambda a=a, b=b, onednn=onednn: onednn(a, b, None, "none", [], "")
        for name, product in products.items():
            product()
            seconds = statistics.median(timed(product, device) for _ in range(7))
            rates.setdefault(name, []).append(2 * size**3 / seconds)
    return rates


def machine(device: torch.device) -> dict[str, Any]:
    """What is measured on."""
    cpu = platform.processor() or platform.machine()
    if (cpuinfo := Path("/proc/cpuinfo")).exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    facts = {"cpu": cpu, "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    return facts | ({"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {})


def versions() -> dict[str, str]:
    """The versions that a result depends on, of those packages that are installed."""
    found: dict[str, str] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _resident(reset: bool = False) -> int:
    """The high-water mark of the process's memory in bytes, after setting it back to what is held now if asked."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    if reset:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    mark = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(mark.split()[1]) * 1024
