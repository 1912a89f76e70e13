"""A run beside the best linear denoiser, by noise level.

    python examples/linear_denoiser.py RUN

The best linear denoiser is the posterior mean under the Gaussian that has the training set's mean and covariance.
Both see the run's held-out images with the same noise; the loss is the mean squared error of eps.
"""

import dataclasses
import sys
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

import rin
from rin.core.seeds import Chance, Purpose, noise_purpose
from rin.data import MediaSet
from rin.model_files import read_experiment
from rin.run_data import open_run_data
from rin.training.held_out import TIMES, held_out_losses


def everything(images: MediaSet) -> Float[Tensor, "b numbers"]:
    """All images of a set in [-1, 1], flat."""
    return rin.to_floats(images.get(torch.arange(len(images)))[0]).flatten(1)


def linear_losses(
    training: Tensor, held_out: Tensor, diffusion: rin.Diffusion, scale: float, noise_version: int
) -> dict[str, float]:
    """The eps loss of the best linear denoiser on `held_out`, by t, with the noise of `held_out_losses`."""
    purpose = noise_purpose(Purpose.HELD_OUT_NOISE, noise_version)
    mean = training.double().mean(0) * scale
    centred = training.double() * scale - mean
    variances, axes = torch.linalg.eigh(centred.T @ centred / len(centred))
    clean, losses = held_out.double() * scale, {}
    for number, t in enumerate(TIMES):
        gamma = diffusion.schedule(torch.tensor(t)).double()
        chance = Chance(0, number, torch.arange(len(held_out)))
        eps = chance.normal(purpose, held_out.shape[1:]).double()
        x_t = gamma.sqrt() * clean + (1 - gamma).sqrt() * eps
        gain = gamma.sqrt() * variances / (gamma * variances + 1 - gamma)
        x_0 = mean + ((x_t - gamma.sqrt() * mean) @ axes * gain) @ axes.T
        losses[str(t)] = (eps - (x_t - gamma.sqrt() * x_0) / (1 - gamma).sqrt()).square().mean().item()
    return losses


def main(folder: Path) -> None:
    """Prints both losses by t, and their means."""
    experiment, trained = read_experiment(folder), rin.load(folder)
    if experiment is None:
        raise SystemExit(f"{folder} is no run")
    data = open_run_data(experiment)
    diffusion = rin.Diffusion(dataclasses.replace(experiment.diffusion, loss_space="eps"))
    where = next(trained.model.parameters()).device
    version = experiment.training.noise_version
    ours = held_out_losses(trained.model, diffusion, trained.kind, data.held_out, 64, where, version)
    linear = linear_losses(
        everything(data.training), everything(data.held_out), diffusion, experiment.diffusion.input_scale, version
    )
    print(f"eps loss on {len(data.held_out)} held-out images\n\nt      RIN      linear   ratio")
    for t in ours:
        print(f"{t:<6} {ours[t]:.4f}   {linear[t]:.4f}   {ours[t] / linear[t]:.3f}")
    mean, linear_mean = (sum(losses.values()) / len(losses) for losses in (ours, linear))
    print(f"mean   {mean:.4f}   {linear_mean:.4f}   {mean / linear_mean:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
