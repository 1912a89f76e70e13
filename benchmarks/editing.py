"""How near pictures changed by a model are to what is true: the ways of `rin.invert` and `rin.inpaint`.

    python -m benchmarks.editing --data path/to/cifar10-parquet

takes pictures that the model has not seen. It takes them to noise and back, by sampler, schedule and steps, and
redraws the square in their centre, by rounds, sampler and treatments of the latents on going back: a step that is
taken again starts from those of the look before (carried), of the step before (kept), or from none (reset). On one
thread, in float32.

    python -m benchmarks.editing --data path/to/cifar10-parquet --features cifar10_features.pt --num 500

measures in their place the Frechet distance of so many pictures to the training split: as they are, with the square in
their mean colour, and with the square redrawn, in the precision that the model takes by itself.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import rin
from rin.core.denoiser import Condition, Denoised
from rin.evaluation.features import scripted_network
from rin.evaluation.images import PART, Samples, measure_samples, reference_of
from rin.sampling import Pipeline

STEPS = (10, 20, 50)
REDRAWN = (
    {"num_rounds": 1}, {"num_rounds": 1, "num_steps": 160}, {"num_rounds": 4}, {"num_rounds": 8}, {"num_rounds": 16},
    {"num_rounds": 8, "latents": "kept"}, {"num_rounds": 8, "latents": "reset"}, {"num_rounds": 8, "sampler": "ddpm"},
)  # fmt: skip


class Latents(nn.Module):
    """A network whose latents are treated in another way where a step is taken again: at the level of the look before.

    Args:
        model: the network.
        treatment: carried, kept or reset.
    """

    def __init__(self, model: nn.Module, treatment: str) -> None:
        super().__init__()
        self.model, self.treatment = model, treatment
        self.level: Tensor | None = None
        self.before: Tensor | None = None

    def forward(
        self, x: Tensor, gamma: Tensor, condition: Condition | None, latents: Tensor | None, latents_only: bool = False
    ) -> Denoised:
        """See `rin.nn.RIN.forward`."""
        if self.level is None or not torch.equal(gamma, self.level):
            self.level, self.before = gamma, latents
        elif self.treatment != "carried":
            latents = self.before if self.treatment == "kept" else None
        return self.model(x, gamma, condition, latents, latents_only)


def decibels(x: Tensor, truth: Tensor) -> Tensor:
    """The peak signal-to-noise ratio of each picture."""
    return 10 * torch.log10(4 / (x - truth).square().flatten(1).mean(dim=1))


def seam(x: Tensor, redrawn: Tensor) -> tuple[float, float]:
    """The squared step between neighbouring pixels across the mask's edge, and inside of it, in grey levels."""
    levels = (x + 1) * 127.5
    across, inside = list[Tensor](), list[Tensor]()
    for dim in (0, 1):
        size = redrawn.shape[dim] - 1
        one, other = redrawn.narrow(dim, 0, size), redrawn.narrow(dim, 1, size)
        steps = levels.diff(dim=dim + 2).square()
        across.append(steps[:, :, one != other].flatten())
        inside.append(steps[:, :, one & other].flatten())
    return torch.cat(across).mean().item(), torch.cat(inside).mean().item()


def there_and_back(trained: rin.TrainedModel, x: Tensor, labels: list[int]) -> None:
    """Prints how near pictures are to those that come back from their noise."""
    print("sampler   schedule  steps  PSNR, dB (least)  deviation of the noise  seconds")
    for schedule in ("cosine", "karras"):
        for sampler in ("ddim", "dpmpp-2m"):
            for num_steps in STEPS:
                options = {"sampler": sampler, "schedule": schedule, "num_steps": num_steps, "precision": "float32"}
                began = time.perf_counter()
                noise = rin.invert(trained, x, labels, **options)
                ratio = decibels(trained.sample(labels, given=rin.Given(noise=noise), **options), x)
                took, found = time.perf_counter() - began, f"{ratio.mean():.1f} ({ratio.min():.1f})"
                print(f"{sampler:9} {schedule:9} {num_steps:5}  {found:16}  {noise.std():22.2f}  {took:7.1f}")


def centre(x: Tensor) -> Tensor:
    """The square in the middle of pictures: a mask of half their height and width."""
    redrawn = torch.zeros(x.shape[2:], dtype=torch.bool)
    height, width = redrawn.shape
    redrawn[height // 4 : -(height // 4), width // 4 : -(width // 4)] = True
    return redrawn


def redrawn_centre(trained: rin.TrainedModel, x: Tensor, labels: list[int]) -> None:
    """Prints how near redrawn squares are to the true ones, and how they join on."""
    redrawn = centre(x)
    across, inside = seam(x, redrawn)
    print("\ndistance to the truth (root mean square), steps across the edge and inside (mean square), in grey levels")
    print(f"{'the truth':44} {0:8.1f} {across:6.0f} {inside:6.0f}")
    for way in REDRAWN:
        options: dict[str, Any] = {"precision": "float32", "batch_size": len(x)} | way
        network = Latents(trained.model, options.pop("latents", "carried"))
        pipeline = Pipeline(network, trained.diffusion, trained.kind, trained.class_names)
        began = time.perf_counter()
        drawn = rin.inpaint(pipeline, x, redrawn, labels, **options)
        took = time.perf_counter() - began
        assert torch.equal(rin.to_pictures(drawn)[:, :, ~redrawn], rin.to_pictures(x)[:, :, ~redrawn])
        distance = ((drawn - x)[:, :, redrawn] * 127.5).square().mean().sqrt()
        across, inside = seam(drawn, redrawn)
        name = " ".join(f"{key}={value}" for key, value in way.items())
        print(f"{name:44} {distance:8.1f} {across:6.0f} {inside:6.0f}  {took:5.0f} s", flush=True)


DISTANCES = ({"num_rounds": 1}, {"num_rounds": 8}, {"num_rounds": 8, "sampler": "ddpm"})


def measured_by(
    trained: rin.TrainedModel, against: str, features: Path
) -> Callable[[Tensor, list[int]], tuple[float, float]]:
    """Measures pictures of some classes: Frechet distance, and the share that a classifier takes for their class."""
    network = scripted_network(features, torch.device("cpu"))
    reference, _ = reference_of(None, against, "train", trained.kind.shape, network, PART)

    def measured(pictures: Tensor, labels: list[int]) -> tuple[float, float]:
        parts = iter([(pictures, labels)])
        samples = Samples(num=len(pictures), description={}, parts=parts, num_classes=trained.kind.num_classes)
        found = measure_samples(samples, network, reference, PART).results()
        return found["frechet_distance"], found["class_accuracy"]

    return measured


def distances(trained: rin.TrainedModel, x: Tensor, labels: list[int], against: str, features: Path) -> None:
    """Prints the Frechet distance of pictures whose centre is redrawn, or filled with the mean of what is around it."""
    measured, redrawn = measured_by(trained, against, features), centre(x)
    mean = x[:, :, ~redrawn].mean(dim=2)
    ways: dict[str, Callable[[], Tensor]] = {
        "as they are": lambda: x,
        "the square in the mean colour": lambda: torch.where(redrawn, mean[:, :, None, None], x),
    }
    for way in DISTANCES:
        name = " ".join(f"{key}={value}" for key, value in way.items())
        ways[name] = partial(rin.inpaint, trained, x, redrawn, labels, batch_size=64, **way)
    print(f"distance of {len(x)} pictures, and how many a classifier takes for their class")
    for name, drawn in ways.items():
        distance, accuracy = measured(rin.to_pictures(drawn()), labels)
        print(f"{name:44} {distance:8.3f} {accuracy:6.3f}", flush=True)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="cifar10-small", help="a model")
    parser.add_argument("--data", required=True, help="pictures with classes, numbered as the model's")
    parser.add_argument("--split", default="test", help="of the data")
    parser.add_argument("--num", type=int, default=16, help="pictures")
    parser.add_argument("--features", type=Path, help="a TorchScript network, to measure distances through")
    parser.add_argument("--reference", help="an .npz of `rin evaluate --keep-reference`; the training split if absent")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    trained = rin.load(chosen.run, device="cpu")
    opened = rin.open_data(rin.DataConfig(path=chosen.data, split=chosen.split, num_held_out=0), trained.kind.shape)
    pictures, labels = opened.training.get(torch.arange(chosen.num))
    x = rin.to_floats(pictures)
    if chosen.features is not None:
        distances(trained, x, labels.tolist(), chosen.reference or chosen.data, chosen.features)
        return
    there_and_back(trained, x, labels.tolist())
    redrawn_centre(trained, x, labels.tolist())


if __name__ == "__main__":
    main()
