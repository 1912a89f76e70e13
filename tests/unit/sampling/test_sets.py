"""Sets of points written to files."""

import numpy as np
import pytest
import torch
from PIL import Image

from rin import RinError, save
from rin.core.values import Values
from rin.sampling.outputs import check_output
from rin.sampling.plots import SIDE, lines, scatter


def test_a_plane_point_is_where_it_lies_and_a_point_in_space_is_paler_farther_away():
    picture = scatter(torch.tensor([[[0.5, 0.5]]]))[0].float().mean(0)
    down, across = (picture < 250).nonzero().float().mean(0).tolist()
    assert across > SIDE * 0.6, "x to the right"
    assert down < SIDE * 0.4, "y up"
    near, far = (scatter(torch.tensor([[[0.0, 0.0, z]]]))[0].float().min() for z in (0.9, -0.9))
    assert near < far


def test_a_grid_of_sets_and_their_arrays(tmp_path):
    sets = torch.rand(6, 10, 2) * 2 - 1
    save(sets, tmp_path / "a.png", labels=[0] * 6, columns=3)
    with Image.open(tmp_path / "a.png") as image:
        assert image.width > 3 * SIDE > image.height - 2 * SIDE
    save(sets, tmp_path / "a.npz", labels=[0, 1] * 3, values=Values(low=0.0, high=10.0, dtype="float64"))
    with np.load(tmp_path / "a.npz") as arrays:
        assert arrays["x"].dtype == np.float64
        np.testing.assert_allclose(arrays["x"], (sets.double().numpy() + 1) * 5)
        assert arrays["labels"].tolist() == [0, 1] * 3


@pytest.mark.parametrize("name", ["a.gif", "a.mp4", "a", "a.txt"])
def test_formats_that_hold_no_sets_are_one_line(tmp_path, name):
    with pytest.raises(RinError, match=r"take \.npz"):
        save(torch.zeros(2, 5, 2), tmp_path / name)
    with pytest.raises(RinError, match=r"take \.npz"):
        check_output(tmp_path / name, (5, 2), 2, 1, None)


def test_points_of_many_numbers_go_into_arrays_alone(tmp_path):
    with pytest.raises(RinError, match="points of 5 numbers"):
        save(torch.zeros(2, 5, 5), tmp_path / "a.png")
    with pytest.raises(RinError, match="points of 5 numbers"):
        check_output(tmp_path / "a.png", (5, 5), 2, 1, None)
    check_output(tmp_path / "a.npz", (5, 5), 2, 1, None)
    save(torch.zeros(2, 5, 5), tmp_path / "a.npz")


def test_pictures_of_many_channels_show_each_beside_the_others(tmp_path):
    pictures = torch.zeros(1, 5, 48, 48, dtype=torch.uint8)
    pictures[0, 3] = 255
    save(pictures, tmp_path / "a.png")
    shown = np.asarray(Image.open(tmp_path / "a.png"))
    white = np.argwhere(shown == 255)
    assert shown.ndim == 2
    assert white[:, 1].min() == 6 + 3 * 48
    assert white[:, 1].max() == 6 + 4 * 48 - 1


def test_a_signal_is_a_line_from_left_to_right_and_up_is_more(tmp_path):
    rising = torch.linspace(-1, 1, 64).view(1, 1, 1, 64)
    picture = lines(rising)[0].float().mean(0)
    dark = (picture < 150).nonzero().float()
    left, right = (dark[dark[:, 1] < SIDE / 2, 0].mean(), dark[dark[:, 1] > SIDE * 1.5, 0].mean())
    assert left > SIDE * 0.6 > SIDE * 0.4 > right
    save(rising.expand(4, 2, 1, 64), tmp_path / "a.png")
    save(rising.expand(4, 2, 1, 64), tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as arrays:
        assert arrays["x"].shape == (4, 2, 64)
    with pytest.raises(RinError, match="cannot write signals as"):
        save(rising, tmp_path / "a.gif")
