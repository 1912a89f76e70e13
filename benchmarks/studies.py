"""Studies of what makes a RIN: CIFAR-10 at 16x16 in minutes a run on a CPU, several seeds of each.

    python -m benchmarks.studies --data path/to/cifar10 --features cifar10_features.pt --out studies
    python -m benchmarks.studies --data path/to/cifar10 --features cifar10_features.pt --out studies --scale gpu
    python -m benchmarks.study_report studies --plot studies.png

The first runs what `--out` does not hold yet, seed by seed; it can be cut off at any time and goes on, and several of
it share the work of one folder. The second does so at 32x32 with the `cifar10` preset, its schedule cut to
`--updates`, and all of the studies; `--scale gpu-third` with a network of a third of its size. The third prints the
tables and draws them.

1. Latent self-conditioning: rates 0, 0.5 and 0.9 (the base); 0 also with about the training time that 0.9 takes.
2. Steps and samplers, on the base's runs: 10 to 100 steps (1000 on a GPU), DDPM and DDIM, latents carried and cold.
3. Details that ports get wrong, each undone alone: attention's initial weights as plain Glorot matrices; dropout and
   stochastic depth of 0.1, which the released CIFAR-10 configuration has, put in; and, beside a base of their own that
   has LAMB for its optimiser, LAMB's ratio clamped to 10, or left out, at a tenth or a third of the rate, as
   AdamW has it.
4. Predictions, training schedules and the input's scale. Held-out losses of other inputs and in
   other spaces do not compare.
5. DDPM's U-Net (diffusers) and JiT, a transformer over the pixels' patches, in the RIN's place: same data, loss,
   sampler and trainer, and as many updates as fit into the time of the base's (timed in turns before the first run).
   Both have AdamW; a RIN with AdamW stands beside them.
6. The number of latents; one deep block and many shallow ones; blocks that only read, but for the last.

The rule, written down before anything ran. What counts is the Frechet distance of 1,000 samples (seed 0, classes
evenly; 10,000 on a GPU) to the training set, through the given network, of 16x16 at twice the size; held-out loss
stands beside it. Differences to its base are paired by seed: same data, noise and, where the arm leaves them alone,
initial weights. With d their mean and h the half width of its 95 % interval (Student's t), an arm is **better** or
**worse** if the interval leaves out 0; otherwise there is **no effect above** |d| + h. One comparison in twenty is
expected to be wrong.
"""

import argparse
import dataclasses
import json
import time
import warnings
from collections.abc import Collection, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import rin
from benchmarks.harness import machine, versions
from benchmarks.study_arms import ARMS, BASE, SCALES, Scale, arms_of
from rin.assessment import drawn_samples, held_out_loss, reference_of
from rin.core.compute import device
from rin.core.errors import RinError
from rin.core.files import locked, written_whole
from rin.data.preparing import prepare_set
from rin.data.shard_writing import Preparation
from rin.diffusion import SamplingOptions
from rin.evaluation.features import scripted_network
from rin.evaluation.quality import PictureMeasures
from rin.experiment import ExperimentConfig

BATCH = 250
"""Samples at a time."""


class Enlarged(nn.Module):
    """A feature network of pictures of twice the side."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Features (b d) of uint8 pictures (b c h w)."""
        return self.network(self.twice(x))

    @torch.jit.export
    def logits(self, x: Tensor) -> Tensor:
        """Logits (b classes) of the same."""
        return self.network.logits(self.twice(x))

    @torch.jit.export
    def twice(self, x: Tensor) -> Tensor:
        """The pictures with twice the side, 0 to 255."""
        return nn.functional.interpolate(x.float(), scale_factor=2.0, mode="bicubic").clamp(0, 255)


class Cold(nn.Module):
    """A network that forgets its latents from step to step."""

    def __init__(self, model: rin.RIN) -> None:
        super().__init__()
        self.model, self.config = model, model.config

    def forward(self, x: Tensor, gamma: Tensor, condition: Any, latents: Tensor | None) -> Any:
        """As the network's, without the latents."""
        del latents
        return self.model(x, gamma, condition, None)


class Queue:
    """What is to be run in a folder.

    Args:
        folder: of all runs.
        data: CIFAR-10, as `--data.path` has it.
        features: the TorchScript network for pictures of 32x32.
        scale: how large all is.
        studies: their numbers.
    """

    def __init__(self, folder: Path, data: str, features: Path, scale: Scale, studies: Collection[int]) -> None:
        self.folder, self.scale, self.studies = folder, scale, studies
        self.set, self.shape, self.device = folder / f"cifar10-{scale.size}", (3, scale.size, scale.size), device()
        folder.mkdir(parents=True, exist_ok=True)
        with _waiting_for(folder / "setup"):
            self._prepare(data, features)
        self.network = scripted_network(folder / "features.pt", self.device)
        self.reference, _ = reference_of(None, str(folder / "reference.npz"), "train", self.shape, self.network, BATCH)

    def _prepare(self, data: str, features: Path) -> None:
        """The set at its size, the network for it, and what is taken of the set: once."""
        prepare_set(Preparation(source=data, shape=self.shape), self.set)
        wrapped, reference = self.folder / "features.pt", self.folder / "reference.npz"
        if not reference.exists():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                network = torch.jit.load(features, map_location="cpu")
                scripted = network if self.scale.size == 32 else torch.jit.script(Enlarged(network))
                scripted.save(str(wrapped))
            loaded = scripted_network(wrapped, self.device)
            reference_of(None, str(self.set), "train", self.shape, loaded, BATCH)[0].save(reference)

    def run(self) -> None:
        """Runs what is missing, until nothing is."""
        for seed in range(self.scale.num_seeds):
            for name in arms_of(self.studies, self.scale.base(self.set, self.scale.updates)):
                folder = self.folder / name / f"seed-{seed}"
                folder.mkdir(parents=True, exist_ok=True)
                with ExitStack() as held:
                    try:
                        held.enter_context(_alone(folder.parent / f"{folder.name}.lock"))
                    except RinError:  # another queue has it
                        continue
                    self._train(name, seed, folder)
                    if name == BASE and 2 in self.studies:
                        self._sample(folder)

    def _train(self, name: str, seed: int, folder: Path) -> None:
        if (folder / "measures.json").exists():
            return
        print(f"{folder} ...", flush=True)
        arm, experiment = ARMS[name], dataclasses.replace(self._experiment(name), seed=seed)
        begun = time.perf_counter()
        with arm.undone():
            trained = rin.train(experiment, folder / "run")
            seconds = time.perf_counter() - begun
            losses = held_out_loss(folder / "run", trained, BATCH)
            measures = self._measures(trained)
        _write(folder / "measures.json", {
            **measures, "held_out_loss": losses, "seconds": seconds, "updates": experiment.training.num_steps,
            "parameters": sum(weight.numel() for weight in trained.model.parameters()), "machine": machine(self.device),
            "versions": versions(),
        })  # fmt: skip

    def _experiment(self, name: str) -> ExperimentConfig:
        """What the runs of an arm are, but for the seed."""
        arm, base = ARMS[name], self.scale.base(self.set, self.scale.updates)
        experiment = arm.change(base)
        if not arm.in_the_same_time:
            return experiment
        path = self.folder / name / "updates.json"
        with _waiting_for(self.folder / name / "timing"):
            if not path.exists():
                from benchmarks.study_rivals import updates_in_the_time_of  # late, for diffusers is long to import

                _write(path, {"updates": updates_in_the_time_of(base, experiment, arm.undone)})
        updates = json.loads(path.read_text())["updates"]
        warmup = round(base.training.warmup_steps * updates / base.training.num_steps)
        training = dataclasses.replace(experiment.training, num_steps=updates, warmup_steps=warmup)
        return dataclasses.replace(experiment, training=training)

    def _sample(self, folder: Path) -> None:
        """Study 2: all ways to sample one of the base's runs."""
        path = folder / "sampling.json"
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        for sampler in ("ddpm", "ddim"):
            for steps in self.scale.steps:
                for latents in ("carried", "cold"):
                    name = f"{sampler} {steps} {latents}"
                    if name not in found:
                        options: SamplingOptions = {"sampler": sampler, "num_steps": steps}
                        found[name] = self._measures(rin.load(folder / "run"), latents == "cold", options)
                        _write(path, found)

    def _measures(
        self, trained: rin.Trained, cold: bool = False, options: SamplingOptions | None = None
    ) -> dict[str, Any]:
        if cold:
            trained = rin.Trained(Cold(trained.model), trained.process, trained.class_names)  # pyright: ignore
        samples = drawn_samples(trained, self.scale.samples, 0, BATCH, None, **(options or {}))
        measures = PictureMeasures(self.network, self.reference, samples.num, samples.num_classes)
        for pictures, labels in samples.parts:
            measures.update(pictures, labels)
        return measures.results()


@contextmanager
def _alone(path: Path) -> Generator[None]:
    """Keeps other queues from a run; a RinError says that one has it."""
    path.mkdir(exist_ok=True)
    with locked(path, f"{path} is in work by", f"cannot work in {path}"):
        yield


@contextmanager
def _waiting_for(path: Path) -> Generator[None]:
    while True:
        try:
            with _alone(path):
                yield
                return
        except RinError as error:
            if "is in work by" not in str(error):
                raise
            time.sleep(5)


def _write(path: Path, content: dict[str, Any]) -> None:
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def main() -> None:
    """Runs the queue."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies")
    parser.add_argument("--out", type=Path, required=True, help="a folder for all runs")
    parser.add_argument("--data", required=True, help="CIFAR-10: a folder with its parquet files, or its Hub name")
    parser.add_argument(
        "--features", type=Path, required=True, help="a TorchScript network for uint8 pictures of 32x32"
    )
    parser.add_argument("--scale", choices=list(SCALES), default="cpu")
    parser.add_argument("--studies", type=int, nargs="+", choices=range(1, 7), help="all of the scale if absent")
    parser.add_argument("--updates", type=int, help="of a run, if not the scale's")
    chosen = parser.parse_args()
    scale = SCALES[chosen.scale]
    if chosen.updates is not None:
        scale = dataclasses.replace(scale, updates=chosen.updates)
    Queue(chosen.out, chosen.data, chosen.features, scale, chosen.studies or scale.studies).run()


if __name__ == "__main__":
    main()
