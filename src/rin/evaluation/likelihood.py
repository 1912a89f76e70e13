"""How likely a run's held-out data are under its model, in bits per dimension."""

from pathlib import Path
from typing import Any

import torch

from rin.core.distributed import share_of, sum_over_processes
from rin.core.errors import RinError
from rin.core.seeds import picture_seeds
from rin.data import held_out_degraded
from rin.experiment import ExperimentConfig
from rin.model_files import weights_digest
from rin.run_data import held_out_of
from rin.sampling.likelihood import NUM_STEPS, USUAL_BATCH, bits_of
from rin.trained_model import TrainedModel

_USUAL = 100
"""Held-out examples, if nothing is said."""


def measured_bits(
    trained: TrainedModel,
    run: Path,
    experiment: ExperimentConfig,
    num: int | None,
    *,
    num_steps: int | None = None,
    seed: int = 0,
    batch_size: int | None = None,
) -> dict[str, Any]:
    """Bits per dimension of the first held-out examples, shared out over the processes, as JSON has them.

    Args:
        trained: the run's model.
        run: its folder.
        experiment: what it was trained as.
        num: held-out examples; 100 at most if None.
        num_steps: of the ODE; 100 if None.
        seed: of dequantisation and probes.
        batch_size: examples at a time; 16 if None.

    Raises:
        RinError: its data cannot be read, it holds out too few, or what `rin.bits_per_dim` refuses.
    """
    held_out = held_out_of(run, experiment)
    num = min(_USUAL, len(held_out)) if num is None else num
    if not 2 <= num <= len(held_out):
        raise RinError(f"--num {num}: {run} holds out {len(held_out)} examples: take 2 to as many")
    steps, size = NUM_STEPS if num_steps is None else num_steps, USUAL_BATCH if batch_size is None else batch_size
    mine, seeds = torch.tensor(list(share_of(num)), dtype=torch.int64), picture_seeds(seed, 0, num)
    sums = torch.zeros(4, dtype=torch.float64)
    if len(mine):
        stored, labels = (part.cpu() for part in held_out.get(mine))
        kind = trained.kind.reading(held_out.class_names)
        _, condition = kind.examples(stored, labels, held_out_degraded(stored, experiment.data.condition_by, mine))
        x = stored[:, : kind.shape[0]] if kind.is_paired else stored
        x = x[:, :, kind.num_context_frames :] if kind.is_video else x
        found = bits_of(trained, x, condition, seeds[mine], steps, batch_size=size)
        evaluations = torch.tensor(found.num_evaluations * len(mine))
        sums = torch.stack([found.bits.sum(), found.bits.square().sum(), found.step_error.sum(), evaluations])
    total, squares, errors, evaluations = sum_over_processes(sums).tolist()
    return {
        "num": num,
        "bits_per_dim": total / num,
        "standard_error": max((squares - total**2 / num) / (num - 1) / num, 0.0) ** 0.5,
        "step_error": errors / num,
        "dequantised": held_out.get(torch.arange(1))[0].dtype == torch.uint8,
        "steps": steps,
        "num_evaluations": round(evaluations / num),
        "num_probes": 1,
        "seed": seed,
        "weights_sha256": weights_digest(trained.model),
    }


def describe_bits(found: dict[str, Any]) -> str:
    """The bits, and how they were had."""
    data = "of 8 bits, dequantised" if found["dequantised"] else "floats: of a density, which may be below 0"
    return "\n".join(
        [
            f"bits per dimension of {found['num']} held-out examples ({data}): {found['bits_per_dim']:.4f}",
            f"  standard error of the mean           {found['standard_error']:.4f}",
            f"  changed by half as many steps ({found['steps']:>4})  {found['step_error']:.4f}",
            f"  evaluations of the network, for each {found['num_evaluations']}",
        ]
    )
