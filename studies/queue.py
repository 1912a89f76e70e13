"""What is to be run in a folder, run: seed by seed, by one queue or several."""

import dataclasses
import json
import statistics
import time
import warnings
from collections.abc import Collection, Generator, Iterable
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import rin
from benchmarks.harness import machine, versions
from rin.core.compute import device
from rin.core.errors import RinError
from rin.core.files import locked, written_whole
from rin.data.prepared.shard_writing import Preparation
from rin.data.preparing import prepare_set
from rin.evaluation.features import FeatureNetwork, scripted_network
from rin.evaluation.images import PART, drawn_samples, held_out_loss, measure_samples, reference_of
from rin.evaluation.reference import Reference
from rin.experiment import ExperimentConfig
from studies.arms import ARMS, BASE, FEWER, Arm, Change, Scale, arms_of
from studies.report import measured

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

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

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
        arms: some of theirs alone, and the base; all if None.
    """

    def __init__(
        self,
        folder: Path,
        data: str,
        features: Path,
        scale: Scale,
        studies: Collection[int],
        arms: Collection[str] | None = None,
    ) -> None:
        self.folder, self.scale, self.studies, self.arms = folder, scale, studies, arms
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

    def run(self, seeds: Iterable[int] | None = None, known: Path | None = None) -> None:
        """Runs what is missing, until nothing is.

        Args:
            seeds: some alone; all of the scale if None.
            known: a file of runs that need not be run again.
        """
        for seed in range(self.scale.num_seeds) if seeds is None else seeds:
            for name in self._names():
                if known is not None and f"seed-{seed}" in measured(known, name):
                    continue
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

    def _names(self) -> list[str]:
        """The arms that are run."""
        names = arms_of(self.studies, self.scale.base(self.set, self.scale.updates))
        return [name for name in names if self.arms is None or name in (BASE, *self.arms)]

    def _train(self, name: str, seed: int, folder: Path) -> None:
        if (folder / "measures.json").exists():
            return
        print(f"{folder} ...", flush=True)
        arm, experiment = ARMS[name], dataclasses.replace(self._experiment(name), seed=seed)
        if self.scale.cpu_seconds is not None:
            experiment = self._in_time(name, experiment)
        if arm.updates != 1:
            experiment = with_updates(experiment, round(arm.updates * experiment.training.num_steps))
        cut_off = any((folder / part).exists() for part in ("first", "run"))
        begun, cpu_begun = time.perf_counter(), time.thread_time()
        with arm.undone():
            if arm.grown_from is not None:
                experiment = _grown(arm.grown_from, experiment, folder / "first")
            trained = rin.train(experiment, folder / "run", model=_network(arm, experiment))
            times = {"seconds": time.perf_counter() - begun, "cpu_seconds": time.thread_time() - cpu_begun}
            if cut_off:  # what the parts before took is not known
                times = dict.fromkeys(times)
            losses = held_out_loss(folder / "run", trained, BATCH)
            measures = self._measures(trained)
            if experiment.model.num_latents_min:
                measures["by_latents"] = {count: self._measures(trained, num_latents=count) for count in FEWER}
        write(folder / "measures.json", {
            **measures, "held_out_loss": losses, "training_loss": training_losses(folder / "run"),
            **times, "updates": experiment.training.num_steps * (1 if arm.grown_from is None else 2),
            "parameters": sum(weight.numel() for weight in trained.model.parameters()), "machine": machine(self.device),
            "versions": versions(),
        })  # fmt: skip

    def _experiment(self, name: str) -> ExperimentConfig:
        """What the runs of an arm are, but for the seed."""
        arm, base = ARMS[name], self.scale.base(self.set, self.scale.updates)
        experiment = arm.change(base)
        network = _network(arm, experiment)
        if not arm.in_the_same_time or network is None:
            return experiment
        path = self.folder / name / "updates.json"
        with _waiting_for(self.folder / name / "timing"):
            if not path.exists():
                from studies.rivals import updates_in_the_time_of  # late, for diffusers is long to import

                write(path, {"updates": updates_in_the_time_of(base, experiment, network)})
        updates = json.loads(path.read_text())["updates"]
        return with_updates(experiment, updates)

    def _in_time(self, name: str, experiment: ExperimentConfig) -> ExperimentConfig:
        """A run of as many updates as fit into the scale's CPU time: those of all arms are timed in turns, once.

        Arms that a file from elsewhere lacks are timed beside the base, whose time in the file scales theirs.
        """
        path = self.folder / "updates.json"
        with _waiting_for(self.folder / "timing"):
            seconds = json.loads(path.read_text())["cpu_seconds_of_update"] if path.exists() else {}
            base = self.scale.base(self.set, self.scale.updates)
            if missing := [arm for arm in self._names() if arm not in seconds]:
                from studies.rivals import cpu_seconds_of_updates  # late, for diffusers is long to import

                sides = {arm: ARMS[arm].change(base) for arm in dict.fromkeys([BASE, *missing])}
                found = cpu_seconds_of_updates(
                    {arm: (side, _network(ARMS[arm], side) or rin.RIN(side.model)) for arm, side in sides.items()}
                )
                scale = seconds[BASE] / found[BASE] if seconds else 1.0
                seconds |= {arm: scale * found[arm] for arm in missing}
                write(path, {"cpu_seconds_of_update": seconds})
        updates = round((self.scale.cpu_seconds or 0) / seconds[name])
        warmup = self.scale.base(self.set, updates).training.warmup_steps
        return with_updates(experiment, updates, warmup)

    def _sample(self, folder: Path) -> None:
        """Study 2: all ways to sample a run."""
        path = folder / "sampling.json"
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        for sampler in self.scale.samplers:
            for steps in self.scale.steps:
                for latents in ("carried", "cold"):
                    name = f"{sampler} {steps} {latents}"
                    if name not in found:
                        options = {"sampler": sampler, "num_steps": (steps + 1) // 2 if sampler == "heun" else steps}
                        found[name] = self._measures(rin.load(folder / "run"), latents == "cold", **options)
                        write(path, found)

    def _measures(self, trained: rin.TrainedModel, cold: bool = False, **options: Any) -> dict[str, Any]:
        if cold:
            trained = rin.TrainedModel(Cold(trained.model), trained.diffusion, trained.config, trained.class_names)
        return measures_of(trained, self.scale.samples, self.network, self.reference, **options)


def measures_of(
    trained: rin.TrainedModel, num: int, network: FeatureNetwork, reference: Reference, **options: Any
) -> dict[str, Any]:
    """What so many samples of seed 0 are like, drawn as `options` of `TrainedModel.sample` say."""
    samples = drawn_samples(trained, num, None, seed=0, batch_size=BATCH, **options)
    return measure_samples(samples, network, reference, PART, trained.config.patch_size).results()


def training_losses(run: Path, parts: int = 20) -> dict[str, float]:
    """The mean loss of each part of a run's training, by the update that the part ends with."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    logged = {line["step"]: line["loss"] for line in lines if "loss" in line}
    steps = sorted(logged)
    size = -(-len(steps) // parts)
    split = [steps[start : start + size] for start in range(0, len(steps), size)]
    return {str(part[-1]): statistics.mean(logged[step] for step in part) for part in split}


def with_updates(experiment: ExperimentConfig, updates: int, warmup: int | None = None) -> ExperimentConfig:
    """The same run with so many updates, and its warm-up cut as they are if none is given."""
    training = experiment.training
    if warmup is None:
        warmup = round(training.warmup_steps * updates / training.num_steps)
    return dataclasses.replace(
        experiment, training=dataclasses.replace(training, num_steps=updates, warmup_steps=warmup)
    )


def _grown(first: Change, experiment: ExperimentConfig, folder: Path) -> ExperimentConfig:
    """The second half of a run, whose first half it trains, as something else, in `folder`."""
    half = with_updates(experiment, experiment.training.num_steps // 2)
    begun = dataclasses.replace(half, training=dataclasses.replace(half.training, lr_schedule="constant"))
    rin.train(first(begun), folder)
    return dataclasses.replace(half, init_from=str(folder))


def _network(arm: Arm, experiment: ExperimentConfig) -> nn.Module | None:
    """The network of an arm that has one of its own, with the initial weights of the experiment's seed."""
    torch.manual_seed(experiment.seed)
    return None if arm.network is None else arm.network(experiment.model)


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


def write(path: Path, content: dict[str, Any]) -> None:
    """A file of JSON, whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")
