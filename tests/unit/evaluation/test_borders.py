"""Seams of patches: steps between neighbouring pixels across borders, over those inside."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from rin.core.errors import RinError
from rin.data.feeding.media_sets import MediaInMemory
from rin.evaluation.borders import PixelSteps
from rin.evaluation.features import FeatureNetwork
from rin.evaluation.quality import PictureMeasures, table
from rin.evaluation.reference import measure_reference, read_reference

NETWORK = FeatureNetwork("flat", {"sha256": "abc"}, torch.device("cpu"), lambda media: media.flatten(1)[:, :6].float())


def steps_of(pictures, batch=7):
    steps = PixelSteps()
    for part in pictures.split(batch):
        steps.update(part)
    return steps


def by_hand(pictures, patch):
    """Pixel by pixel."""
    borders, inside = [], []
    for picture in pictures.double().numpy():
        _, height, width = picture.shape
        for row in range(height):
            for column in range(width):
                if row + 1 < height:
                    step = (picture[:, row + 1, column] - picture[:, row, column]) ** 2
                    (borders if (row + 1) % patch == 0 else inside).append(("down", row, step.mean()))
                if column + 1 < width:
                    step = (picture[:, row, column + 1] - picture[:, row, column]) ** 2
                    (borders if (column + 1) % patch == 0 else inside).append(("across", column, step.mean()))

    def mean_over_lines(found):
        lines = {}
        for way, place, step in found:
            lines.setdefault((way, place), []).append(step)
        return np.mean([np.mean(steps) for steps in lines.values()])

    return mean_over_lines(borders) / mean_over_lines(inside)


@pytest.mark.parametrize(("shape", "patch"), [((3, 8, 8), 2), ((1, 8, 12), 4), ((3, 12, 8), 2)])
def test_the_ratio_is_the_one_by_hand_whatever_the_batches(shape, patch):
    pictures = torch.randint(0, 256, (11, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pictures[:, :, ::3] //= 2
    expected = by_hand(pictures, patch)
    for batch in (1, 4, 11):
        assert steps_of(pictures, batch).border_ratio(patch) == pytest.approx(expected, rel=1e-9)


def test_a_mosaic_is_far_above_1_at_its_own_patch_alone_and_smooth_pictures_are_at_1():
    tiles = torch.randint(0, 256, (20, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    noise = torch.randint(0, 9, (20, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    mosaic = tiles.repeat_interleave(4, 2).repeat_interleave(4, 3) // 2 + noise
    assert steps_of(mosaic).border_ratio(4) > 100
    assert steps_of(mosaic).border_ratio(8) < 20  # half of these borders are inside
    assert steps_of(noise).border_ratio(4) == pytest.approx(1, abs=0.05)


def test_ratios_are_those_of_patches_that_divide_the_pictures():
    assert list(steps_of(torch.zeros(1, 1, 12, 8, dtype=torch.uint8)).border_ratios()) == ["2", "4"]
    assert PixelSteps().border_ratios() == {}


@pytest.mark.parametrize(("shape", "patch"), [((1, 1, 8, 8), 8), ((1, 1, 8, 8), 1)])
def test_patches_without_borders_or_without_an_inside_are_refused(shape, patch):
    with pytest.raises(RinError, match=f"patches of {patch}"):
        steps_of(torch.zeros(shape, dtype=torch.uint8)).border_ratio(patch)
    with pytest.raises(RinError, match="no pictures"):
        PixelSteps().border_ratio(2)


def a_set(pictures):
    return MediaInMemory(pictures, torch.full((len(pictures),), -1), ())


def test_the_measures_have_that_of_the_models_patches_beside_the_references(tmp_path):
    real, drawn = (torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))
                   for n in (0, 1))  # fmt: skip
    reference = measure_reference(a_set(real), NETWORK, 16, {"set": "random"})
    reference.save(tmp_path / "reference.npz")
    results = []
    for kept in (reference, read_reference(tmp_path / "reference.npz", NETWORK)):
        measures = PictureMeasures(NETWORK, kept, len(drawn), patch_size=4)
        measures.update(drawn, None)
        results.append(measures.results()["border_ratio"])
    assert results[0] == results[1] == {
        "patch_size": 4,
        "samples": pytest.approx(by_hand(drawn, 4)),
        "reference": pytest.approx(by_hand(real, 4)),
    }  # fmt: skip
    line = table({"": measures.results()}).splitlines()[-1]
    assert line.endswith(f"{by_hand(drawn, 4):.3f} (reference {by_hand(real, 4):.3f})")


@pytest.mark.parametrize(("patch", "told"), [(0, {}), (1, {}), (3, {"border_ratios": {"3": 1.0}})])
def test_models_whose_patches_have_no_borders_have_no_ratio(patch, told):
    assert "border_ratio" not in _measured(patch, told)


@pytest.mark.parametrize("told", [{}, {"border_ratios": 3}, {"border_ratios": {"4": "x"}}, {"border_ratios": None}])
def test_a_reference_that_tells_none_leaves_its_side_open(told):
    assert _measured(4, told)["border_ratio"]["reference"] is None


def _measured(patch, told):
    pictures = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    reference = measure_reference(a_set(pictures), NETWORK, 16, {})
    reference = replace(reference, description=told)
    measures = PictureMeasures(NETWORK, reference, len(pictures), patch_size=patch)
    measures.update(pictures, None)
    return measures.results()
