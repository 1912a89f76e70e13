"""How good sets of points, and signals, are: distances between them, and what these say of drawn ones beside others.

Chamfer distance (Fan et al., 2017) and earth mover's distance (Rubner et al., 2000); coverage and minimum matching
distance (Achlioptas et al., 2018, arXiv 1707.02392); 1-nearest-neighbour accuracy (Lopez-Paz and Oquab, 2017), as
PointFlow has them (Yang et al., 2019, arXiv 1906.12320).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rin.core.errors import RinError
from rin.core.progress import LOGGER, progress_bar
from rin.core.shapes import Examples
from rin.evaluation.asked import has_labels_of_data, of_kind
from rin.model_files import CONFIG, read_experiment
from rin.run_data import check_data, open_run_data
from rin.sampling.requests import spread_labels
from rin.trained_model import TrainedModel

_USUAL = 500
"""Sets that are drawn, if nothing is said."""

_CHECKED = 200
"""Drawn sets, and held-out ones, whose nearest is looked for in all that was trained on."""

_AT_A_TIME = 2**20
"""Distances between points that are worked out at once: as many as a processor's cache holds."""

Sets = Float[Tensor, "b n c"]
Distances = Float[Tensor, "a b"]
Distance = Callable[[Examples, Examples], Distances]


def chamfer_distances(sets: Sets, others: Float[Tensor, "others m c"]) -> Float[Tensor, "b others"]:
    """The mean squared distance from each point of a set to the nearest of another, and back again, summed."""
    # |a - b|^2 = (-2 a, |a|^2, 1) (b, 1, |b|^2): all distances between points are one matrix product.
    squares, other_squares = (x.square().sum(-1, keepdim=True) for x in (sets, others))
    left = torch.cat([-2 * sets, squares, torch.ones_like(squares)], -1)
    right = torch.cat([others, torch.ones_like(other_squares), other_squares], -1)
    at_a_time = max(1, _AT_A_TIME // (sets.shape[1] * others.shape[1]))
    parts = right.split(at_a_time)
    with progress_bar("comparing sets", len(sets)) as bar:
        return torch.stack([torch.cat([_chamfer(one, part) for part in parts]) for one in bar.counted(left)])


def _chamfer(left: Float[Tensor, "n k"], right: Float[Tensor, "some m k"]) -> Float[Tensor, " some"]:
    """Of one set and several; at once, so that the distances between points never leave the cache."""
    squares = (right.flatten(0, 1) @ left.mT).unflatten(0, right.shape[:2])
    return squares.amin(2).clamp(min=0).mean(1) + squares.amin(1).clamp(min=0).mean(1)


def squared_distances(signals: Examples, others: Float[Tensor, "others ..."]) -> Float[Tensor, "b others"]:
    """The mean squared difference between signals."""
    flat, other = signals.flatten(1), others.flatten(1)
    return torch.cdist(flat, other).square() / flat.shape[1]


def earth_movers_distances(sets: Sets, others: Float[Tensor, "others n c"]) -> Float[Tensor, "b others"]:
    """The mean distance between matched points of two sets of as many, under the matching that makes it least.

    Raises:
        ImportError: SciPy, which finds the matching, is not installed.
    """
    from scipy.optimize import linear_sum_assignment

    found = torch.empty(len(sets), len(others))
    with progress_bar("matching sets", len(sets)) as bar:
        for row, one in bar.counted(zip(found, sets.double(), strict=True)):
            for column, costs in enumerate(torch.cdist(one[None], others.double()).numpy()):
                row[column] = float(costs[linear_sum_assignment(costs)].mean())
    return found


class SetQuality(NamedTuple):
    """Drawn sets beside as many reference sets."""

    nearest_neighbour_accuracy: float
    """Of telling which sets are drawn by the nearest other set of both: 0.5 where they cannot be told apart."""

    coverage: float
    """Share of the reference sets that are the nearest one to some drawn set."""

    minimum_matching_distance: float
    """Mean distance from a reference set to the nearest drawn one."""


def set_quality(drawn: Examples, reference: Float[Tensor, "r ..."], distance: Distance) -> SetQuality:
    """The three measures.

    Raises:
        RinError: the two are not as many.
    """
    if len(drawn) != len(reference):
        raise RinError(f"{len(drawn)} drawn sets and {len(reference)} of the reference: give as many")
    between = distance(drawn, reference)
    among = [distance(sets, sets).fill_diagonal_(torch.inf) for sets in (drawn, reference)]
    own, other = (torch.cat(both) for both in (
        [among[0].amin(1), among[1].amin(1)], [between.amin(1), between.amin(0)]
    ))  # fmt: skip
    return SetQuality(
        nearest_neighbour_accuracy=float(((own < other).double() + (own == other).double() / 2).mean()),
        coverage=len(between.argmin(1).unique()) / len(reference),
        minimum_matching_distance=float(between.amin(0).mean()),
    )


def measured_sets(
    trained: TrainedModel, run: Path, num: int | None, num_matched: int, **options: Any
) -> dict[str, Any]:
    """All measures of sets or signals that a run's model draws, its classes spread evenly, as JSON has them.

    One that draws by captions gets those of the held-out examples.

    Args:
        trained: the model.
        run: its folder, which tells the data; the drawn sets are compared with those that it holds out.
        num: sets; 500 at most, as many as are held out, if None.
        num_matched: how many a side the earth mover's distance compares; 0 for none.
        **options: of `TrainedModel.sample`.

    Raises:
        RinError: it tells no data, these cannot be read, or hold out fewer sets.
    """
    experiment = read_experiment(run) if (run / CONFIG).is_file() else None
    if experiment is None:
        raise RinError(f"{run} tells not what it was trained on, and sets are measured beside such: give a run")
    data, kind = open_run_data(experiment), trained.kind
    check_data(run, data.identity)
    num = min(_USUAL, len(data.held_out)) if num is None else num
    if not 2 <= num <= len(data.held_out):
        raise RinError(f"--num {num}: take 2 to {len(data.held_out)}, as many as the run holds out (data.num_held_out)")
    held_out = torch.arange(num)
    asked = spread_labels(range(kind.num_classes), num) if kind.num_classes else None
    if has_labels_of_data(kind):
        trained = of_kind(trained, kind.reading(data.held_out.class_names))
        asked = data.held_out.get(held_out)[1].tolist()
    drawn = trained.sample(asked, num, **options)
    (reference, labels), (training, training_labels) = (
        (kind.examples(*got)[0], got[1])
        for got in (data.held_out.get(held_out), data.training.get(torch.arange(len(data.training))))
    )
    near = chamfer_distances if kind.is_set else squared_distances
    name = "chamfer" if kind.is_set else "squared"
    found: dict[str, Any] = {"num": num, name: set_quality(drawn, reference, near)._asdict()}
    try:
        if num_matched and kind.is_set:
            places = _spread(num, num_matched)
            quality = set_quality(drawn[places], reference[places], earth_movers_distances)
            found["earth_mover"] = {"num": len(places)} | quality._asdict()
    except ImportError:
        LOGGER.warning("no earth mover's distance, which takes SciPy: pip install scipy")
    checked = _spread(num, _CHECKED)
    nearest = {name: near(some[checked], training).min(1) for name, some in (("drawn", drawn), ("held_out", reference))}
    found["nearest_of_training"] = {"num": len(checked)} | {
        name: float(one.values.mean()) for name, one in nearest.items()
    }
    if asked is not None:
        classes = {"drawn": torch.tensor(asked), "held_out": labels}
        found["class_accuracy"] = {
            name: float((training_labels[one.indices] == classes[name][checked]).double().mean())
            for name, one in nearest.items()
        }
    return found


def _spread(count: int, num: int) -> Int[Tensor, " some"]:
    """At most `num` of `count` places, spread evenly: drawn sets lie class by class, and some must be of each."""
    return torch.linspace(0, count - 1, min(num, count)).round().long()


def describe_sets(results: dict[str, Any]) -> str:
    """The measures, a line each."""
    lines = []
    for name, words in (
        ("chamfer", "Chamfer distance"),
        ("squared", "mean squared difference"),
        ("earth_mover", "earth mover's distance"),
    ):
        if name in results:
            of_name = results[name]
            few = f", {of_name['num']} a side" if "num" in of_name else ""
            lines += [
                f"by the {words}{few}:",
                f"  1-nearest-neighbour accuracy, nearer to 0.5 {of_name['nearest_neighbour_accuracy']:>14.3f}",
                f"  coverage, higher {of_name['coverage']:>41.3f}",
                f"  minimum matching distance, lower {of_name['minimum_matching_distance']:>25.4g}",
            ]
    if "class_accuracy" in results:
        drawn, held_out = (results["class_accuracy"][name] for name in ("drawn", "held_out"))
        lines.append(f"nearest trained on is of the class asked for {drawn:>15.3f}  (held-out ones: {held_out:.3f})")
    near = results["nearest_of_training"]
    ratio = near["drawn"] / near["held_out"] if near["held_out"] else float("nan")
    lines.append(f"distance to the nearest trained on, over a held-out one's {ratio:>2.3f}  (far below 1: copies)")
    lines.append(f"(the nearest trained on: of {near['num']} drawn and as many held-out ones)")
    return "\n".join(lines)
