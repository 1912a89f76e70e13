"""Studies of what makes a RIN, at a size for a CPU: 16x16 CIFAR-10, minutes a run, several seeds of each.

    python -m benchmarks.studies --data path/to/cifar10 --features cifar10_features.pt --out studies
    python -m benchmarks.study_report studies --plot studies.png

The first runs what `--out` does not hold yet, seed by seed; it can be cut off at any time and goes on, and several of
it share the work of one folder. The second prints the tables and draws them.

1. Latent self-conditioning: rates 0, 0.5 and 0.9 (the base); 0 also with about the training time that 0.9 takes.
2. Steps and samplers, on the base's runs: 10 to 100 steps, DDPM and DDIM, latents carried and cold.
3. Details that ports get wrong, each undone alone: attention's initial weights as plain Glorot matrices; dropout and
   stochastic depth of 0.1, which the released CIFAR-10 configuration has, put in; and, beside a base of their own that
   has LAMB for its optimiser, LAMB's ratio clamped to 10, or left out, at a rate of 1e-3, as AdamW has it.

The rule, written down before anything ran. What counts is the Frechet distance of 1,000 samples (seed 0, classes
evenly) to the training set, through the given network at twice the size; held-out loss stands beside it. Differences
to its base are paired by seed: same data, noise and, where the arm leaves them alone, initial weights. With d their
mean and h the half width of its 95 % interval (Student's t), an arm is **better** or **worse** if the interval leaves
out 0; otherwise there is **no effect above** |d| + h. One comparison in twenty is expected to be wrong.
"""

import argparse
import dataclasses
import json
import time
import warnings
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

import rin
from benchmarks.harness import machine, versions
from rin.assessment import drawn_samples, held_out_loss, reference_of
from rin.core.errors import RinError
from rin.core.files import locked, written_whole
from rin.data import DataConfig
from rin.data.preparing import prepare_set
from rin.data.shard_writing import Preparation
from rin.diffusion import DiffusionConfig, SamplingOptions
from rin.evaluation.features import FeatureNetwork
from rin.evaluation.quality import PictureMeasures
from rin.experiment import ExperimentConfig
from rin.nn import RINConfig, initialisation
from rin.training import optim
from rin.training.config import TrainingConfig

SIZE, SAMPLES, BATCH = 16, 1000, 250
UPDATES = 1_500
BASE, LAMB = "base", "lamb"
CPU = torch.device("cpu")

Change = Callable[[ExperimentConfig], ExperimentConfig]


def base_experiment(data: Path) -> ExperimentConfig:
    """The run that all arms depart from: small-32 at a quarter of the pixels, with Muon, which learns places sooner."""
    return ExperimentConfig(
        model=RINConfig(
            shape=(3, SIZE, SIZE), patch_size=4, num_classes=10, num_latents=16, latent_dim=128, interface_dim=96,
            compute_depth=(1, 1, 1), num_heads=4, num_read_write_heads=4, latent_mlp_ratio=4, interface_mlp_ratio=2,
            position_deviation=1.0,
        ),
        diffusion=DiffusionConfig(
            schedule="sigmoid@-3,3,0.9", sampling_schedule="cosine", prediction="v", loss_space="eps", num_steps=100,
        ),
        data=DataConfig(path=str(data), num_held_out=512, flip=True),
        training=TrainingConfig(
            num_steps=UPDATES, batch_size=32, optimiser="muon", learning_rate=4e-3, betas=(0.95, 0.99),
            lr_schedule="cosine", warmup_steps=150,
            average_decay=0.999, average_warmup=True, held_out_every=0, sample_every=0, checkpoint_every=500,
        ),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Arm:
    """How the runs of an arm depart from the base."""

    study: int
    words: str
    change: Change = lambda experiment: experiment
    undone: Callable[[], AbstractContextManager[Any]] = nullcontext
    beside: str = BASE


def _diffusion(**changes: Any) -> Change:
    return lambda whole: dataclasses.replace(whole, diffusion=dataclasses.replace(whole.diffusion, **changes))


def _training(**changes: Any) -> Change:
    return lambda whole: dataclasses.replace(whole, training=dataclasses.replace(whole.training, **changes))


def _model(**changes: Any) -> Change:
    return lambda whole: dataclasses.replace(whole, model=dataclasses.replace(whole.model, **changes))


def _lamb(rate: float) -> Change:
    return _training(optimiser="lamb", learning_rate=rate, betas=(0.9, 0.999))


def _clamped(most: float) -> Callable[[], AbstractContextManager[Any]]:
    honest = optim.trust_ratios
    return lambda: mock.patch.object(optim, "trust_ratios", lambda *args: honest(*args).clamp(max=most))


def _without_ratio() -> AbstractContextManager[Any]:
    return mock.patch.object(optim, "trust_ratios", lambda weights, *_: torch.ones(len(weights)))


ARMS = {
    BASE: Arm(study=1, words="rate 0.9 (the base)"),
    "rate-0.5": Arm(study=1, words="rate 0.5", change=_diffusion(self_cond_rate=0.5)),
    "rate-0": Arm(study=1, words="rate 0", change=_diffusion(self_cond_rate=0.0)),
    "rate-0-longer": Arm(
        study=1,
        words="rate 0, 1.2 times the updates",
        change=lambda whole: _training(num_steps=round(1.2 * UPDATES))(_diffusion(self_cond_rate=0.0)(whole)),
    ),
    "plain-glorot": Arm(
        study=3,
        words="attention's initial weights plain Glorot",
        undone=lambda: mock.patch.object(initialisation, "attention_"),
    ),
    "dropout": Arm(
        study=3, words="dropout and stochastic depth 0.1", change=_model(dropout_rate=0.1, depth_drop_rate=0.1)
    ),
    LAMB: Arm(study=3, words="LAMB (a base)", change=_lamb(1e-2), beside=LAMB),
    "clamped-ratio": Arm(
        study=3, words="LAMB's ratio clamped to 10", change=_lamb(1e-2), undone=_clamped(10.0), beside=LAMB
    ),
    "no-ratio": Arm(study=3, words="no ratio, rate 1e-3", change=_lamb(1e-3), undone=_without_ratio, beside=LAMB),
}


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
        seeds: of the runs.
        arms: names of those to run.
    """

    def __init__(self, folder: Path, data: str, features: Path, seeds: list[int], arms: list[str]) -> None:
        self.folder, self.seeds, self.arms = folder, seeds, arms
        folder.mkdir(parents=True, exist_ok=True)
        with _waiting_for(folder / "setup"):
            self._prepare(data, features)
        self.network = FeatureNetwork(folder / "features.pt", CPU)
        self.reference, _ = reference_of(
            None, str(folder / "reference.npz"), "train", (3, SIZE, SIZE), self.network, BATCH
        )

    def _prepare(self, data: str, features: Path) -> None:
        """The set at 16x16, the network for it, and what is taken of the set: once."""
        prepare_set(Preparation(source=data, shape=(3, SIZE, SIZE)), self.folder / "cifar10-16")
        wrapped, reference = self.folder / "features.pt", self.folder / "reference.npz"
        if not reference.exists():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                torch.jit.script(Enlarged(torch.jit.load(features, map_location=CPU))).save(str(wrapped))
            network = FeatureNetwork(wrapped, CPU)
            source = str(self.folder / "cifar10-16")
            reference_of(None, source, "train", (3, SIZE, SIZE), network, BATCH)[0].save(reference)

    def run(self) -> None:
        """Runs what is missing, until nothing is."""
        for seed in self.seeds:
            for name in self.arms:
                folder = self.folder / name / f"seed-{seed}"
                folder.mkdir(parents=True, exist_ok=True)
                with ExitStack() as held:
                    try:
                        held.enter_context(_alone(folder.parent / f"{folder.name}.lock"))
                    except RinError:  # another queue has it
                        continue
                    self._train(ARMS[name], seed, folder)
                    if name == BASE:
                        self._sample(folder)

    def _train(self, arm: Arm, seed: int, folder: Path) -> None:
        if (folder / "measures.json").exists():
            return
        print(f"{folder} ...", flush=True)
        experiment = dataclasses.replace(arm.change(base_experiment(self.folder / "cifar10-16")), seed=seed)
        begun = time.perf_counter()
        with arm.undone():
            trained = rin.train(experiment, folder / "run")
        seconds = time.perf_counter() - begun
        losses = held_out_loss(folder / "run", trained, BATCH)
        measures = self._measures(trained)
        _write(folder / "measures.json", {
            **measures, "held_out_loss": losses, "seconds": seconds, "machine": machine(CPU), "versions": versions(),
        })  # fmt: skip

    def _sample(self, folder: Path) -> None:
        """Study 2: all ways to sample one of the base's runs."""
        path = folder / "sampling.json"
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        for sampler in ("ddpm", "ddim"):
            for steps in (10, 25, 100):
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
        samples = drawn_samples(trained, SAMPLES, 0, BATCH, None, **(options or {}))
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
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    chosen = parser.parse_args()
    Queue(chosen.out, chosen.data, chosen.features, chosen.seeds, chosen.arms).run()


if __name__ == "__main__":
    main()
