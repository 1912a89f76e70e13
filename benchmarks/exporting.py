"""How fast exported networks draw beside PyTorch, and how near to it.

    python -m benchmarks.exporting

exports the models that come with rin and draws guided samples from the same noise by PyTorch in float32 and bfloat16,
and by onnxruntime under `sample.py`, in turns. On one thread; times are the processor's.
"""

import json
import tempfile
import time
from collections.abc import Callable

import numpy as np
import onnxruntime
import torch

import rin
from rin.diffusion.samplers import EVERYWHERE
from rin.interop.exporting import sample
from rin.model_files import models_that_come_along

STEPS, GUIDANCE, ROUNDS = 25, 1.0, 7


def main() -> None:
    """Prints a line for each model and batch size."""
    torch.set_num_threads(1)
    for name in models_that_come_along():
        trained = rin.load(name, device="cpu")
        with tempfile.TemporaryDirectory() as folder:
            file = rin.interop.export(trained.model, trained.diffusion, folder).files[0]
            config, size = json.loads(file.with_suffix(".json").read_text("utf-8")), file.stat().st_size
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            network = onnxruntime.InferenceSession(file, options)
        for num in (1, 16):
            measure(trained, network, config, num, f"{name}, {size / 1e6:.1f} MB, {num} at once")


def measure(
    trained: rin.TrainedModel, network: onnxruntime.InferenceSession, config: dict[str, object], num: int, title: str
) -> None:
    """Prints milliseconds a step, and the largest difference between pictures."""
    noise = torch.randn(num, *trained.kind.shape, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(num) % trained.kind.num_classes
    condition = trained.kind.condition(labels)
    everywhere = config | {"guidance_interval": None}
    given, nothing = {"labels": labels.numpy()}, {"labels": np.full(num, -1)}

    def ours(bfloat16: bool) -> np.ndarray:
        return trained.diffusion.sample(
            trained.model, noise.shape, condition, noise=[noise], num_steps=STEPS, sampler=config["sampler"],
            guidance=GUIDANCE, guidance_interval=EVERYWHERE, bfloat16=bfloat16,
        ).numpy()  # fmt: skip

    ways: dict[str, Callable[[], np.ndarray]] = {
        "float32": lambda: ours(False),
        "bfloat16": lambda: ours(True),
        "onnxruntime": lambda: sample.draw(network, everywhere, noise.numpy(), given, nothing, STEPS, GUIDANCE),
    }
    drawn = {way: draw() for way, draw in ways.items()}
    seconds = {way: list[float]() for way in ways}
    for _ in range(ROUNDS):
        for way, draw in ways.items():
            started = time.process_time()
            draw()
            seconds[way].append(time.process_time() - started)
    times = ", ".join(f"{way} {1000 * np.median(each) / STEPS:.2f} ms" for way, each in seconds.items())
    apart = np.abs(drawn["onnxruntime"] - drawn["float32"]).max() * 127.5
    print(f"{title}: {times} a step; onnxruntime {apart:.1e} grey levels from float32", flush=True)


if __name__ == "__main__":
    main()
