"""Made data and measures."""

from tests.mutants.mutant import Mutant

MUTANTS = [
    Mutant(
        "walls-that-swallow",
        "toys/moving_shapes.py",
        "np.minimum(path, 2 * room - path)",
        "np.minimum(path, room)",
        "shapes bounce off the walls",
        ("tests/unit/toys/test_moving_shapes.py::test_shapes_are_reflected_at_the_walls_as_light_is",),
    ),
    Mutant(
        "kernel-distance-biased",
        "evaluation/kernel.py",
        "float(_kernel(part, part).sum() - _kernel_of_equals(part).sum())",
        "float(_kernel(part, part).sum())",
        "no feature is compared with itself",
        ("tests/unit/evaluation/test_metrics.py::test_kernel_distance_is_that_of_torchmetrics",),
    ),
    Mutant(
        "samples-are-their-own-neighbours",
        "evaluation/neighbourhoods.py",
        "distances[:, [_MANIFOLD, _DENSITY]].T",
        "distances[:, [_MANIFOLD - 1, _DENSITY - 1]].T",
        "the third nearest is the third of the others",
        ("tests/unit/evaluation/test_metrics.py::test_neighbourhoods_are_those_of_the_published_formulas",),
    ),
    Mutant(
        "borders-one-pixel-off",
        "evaluation/borders.py",
        "torch.arange(1, len(steps) + 1) % patch_size == 0",
        "torch.arange(len(steps)) % patch_size == 0",
        "a border lies behind a patch's last pixel",
        ("tests/unit/evaluation/test_borders.py::test_the_ratio_is_the_one_by_hand_whatever_the_batches",),
    ),
    Mutant(
        "scores-of-one-class-a-part",
        "evaluation/scores.py",
        "parts = (torch.arange(len(logits)) + self.count) % _PARTS",
        "parts = (torch.arange(len(logits)) + self.count) * _PARTS // 100 % _PARTS",
        "parts of the Inception Score have all classes",
        ("tests/unit/evaluation/test_metrics.py::test_inception_score_of_known_distributions",),
    ),
]
