"""The Frechet distance through a network of the user's: against closed forms and scipy, and what is refused."""

import zipfile

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from rin import RinError
from rin.evaluation.features import scripted_network
from rin.evaluation.frechet import FeatureStatistics, feature_statistics, frechet_distance

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # the tests' own use of it
CPU = torch.device("cpu")


class Means(torch.nn.Module):
    """Called as the I3D network of published FVDs is: scores, unless it is asked for features."""

    def forward(
        self, x: torch.Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False
    ) -> torch.Tensor:
        if rescale:
            x = x / 127.5 - 1
        if resize:
            x = torch.nn.functional.interpolate(x, [4, 8, 8])
        return x.mean(dim=[2, 3, 4]) if return_features else x.sum(dim=[2, 3, 4])


class Features(torch.nn.Module):
    """As the docstring of the module says to wrap that network."""

    def __init__(self, network) -> None:
        super().__init__()
        self.network = network

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return self.network(clips.float(), rescale=True, resize=True, return_features=True)


class Pixels(torch.nn.Module):
    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return clips.flatten(1).float()


class Two(torch.nn.Module):
    def forward(self, clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return clips, clips


class Flat(torch.nn.Module):
    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return clips.float().mean(dim=[1, 2, 3, 4])


class Fewer(torch.nn.Module):
    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return clips.flatten(1).float()[:-1]


class Infinite(torch.nn.Module):
    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return clips.flatten(1).float() / 0


def clips(count, seed=0, size=6):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, 3, 3, size, size), np.uint8))


def saved(module, path):
    torch.jit.script(module).save(path)
    return path


def statistics(features):
    found = FeatureStatistics(features.shape[1])
    found.update(features)
    return found


def with_moments(mean, covariance, count=50, seed=0):
    """Features of exactly this mean and covariance."""
    dim = len(mean)
    noise = torch.from_numpy(np.random.default_rng(seed).normal(size=(count, dim)))
    noise = noise - noise.mean(0)
    white = noise @ torch.linalg.inv(torch.linalg.cholesky(noise.T @ noise / (count - 1))).T
    values, vectors = torch.linalg.eigh(torch.as_tensor(covariance, dtype=torch.float64))
    return white @ (vectors * values.clamp(min=0).sqrt()).T + torch.as_tensor(mean, dtype=torch.float64)


def test_normal_distributions_in_closed_form():
    one = statistics(with_moments([0.0, 1.0, -2.0], torch.diag(torch.tensor([1.0, 4.0, 9.0]))))
    other = statistics(with_moments([3.0, 1.0, 2.0], torch.diag(torch.tensor([4.0, 4.0, 0.25])), seed=1))
    # (3^2 + 4^2) + (1 - 2)^2 + (2 - 2)^2 + (3 - 0.5)^2
    assert frechet_distance(one, other) == pytest.approx(25 + 1 + 6.25, rel=1e-9)


def test_it_is_what_scipy_says_of_covariances_that_do_not_commute():
    random = np.random.default_rng(0)
    first, second = (
        random.normal(size=(200, 12)) @ random.normal(size=(12, 12)) + random.normal(size=12) for _ in "ab"
    )
    one, other = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    expected = np.sum((first.mean(0) - second.mean(0)) ** 2) + np.trace(one + other - 2 * sqrtm(one @ other).real)
    found = frechet_distance(statistics(torch.from_numpy(first)), statistics(torch.from_numpy(second)))
    assert found == pytest.approx(expected, rel=1e-9)


def test_fewer_samples_than_features():
    features = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 5, 40)))
    one, other = statistics(features[0]), statistics(features[1])
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
    # with one direction each, the root of the product is the product of lengths times the cosine between them
    flat = torch.zeros(2, 40)
    flat[1, :2] = torch.tensor([3.0, 4.0])
    up = torch.zeros(2, 40)
    up[1, 1] = 2.0
    first, second = statistics(flat), statistics(up)
    apart = 1.5**2 + (2 - 1) ** 2
    assert frechet_distance(first, second) == pytest.approx(apart + 12.5 + 2 - 2 * (12.5 * 2) ** 0.5 * 0.8, rel=1e-9)
    assert frechet_distance(one, other) > 0


def test_batches_and_parts_make_no_difference_even_far_from_nought():
    features = torch.from_numpy(np.random.default_rng(0).normal(size=(101, 7)) + 1e6)
    whole, batch_by_batch, part = statistics(features), FeatureStatistics(7), FeatureStatistics(7)
    for batch in features[:40].split(13):
        batch_by_batch.update(batch)
    for batch in features[40:].split(1):
        part.update(batch)
    part.update(features[:0])
    batch_by_batch.merge(part)
    batch_by_batch.merge(FeatureStatistics(7))
    assert batch_by_batch.count == whole.count == 101
    torch.testing.assert_close(batch_by_batch.mean, whole.mean, rtol=1e-15, atol=0)
    expected = torch.from_numpy(np.cov(features.numpy(), rowvar=False))
    torch.testing.assert_close(batch_by_batch.covariance, expected, rtol=1e-8, atol=1e-8)
    assert frechet_distance(batch_by_batch, whole) < 1e-8


def test_a_scripted_network_wrapped_as_documented(tmp_path):
    saved(Means(), tmp_path / "i3d.pt")
    network = scripted_network(saved(Features(torch.jit.load(tmp_path / "i3d.pt")), tmp_path / "features.pt"), CPU)
    features = network(clips(4, size=8))
    assert features.shape == (4, 3)
    assert features.dtype == torch.float64
    assert features.abs().max() <= 1
    found = feature_statistics(clips(10).split(3), network)
    assert found.count == 10
    assert frechet_distance(found, feature_statistics([clips(10)], network)) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(found, feature_statistics([clips(10) // 2], network)) > 0.1


def test_a_traced_network_and_one_of_pictures(tmp_path):
    torch.jit.trace(Pixels(), clips(2)).save(tmp_path / "traced.pt")
    assert torch.equal(scripted_network(tmp_path / "traced.pt", CPU)(clips(3)), clips(3).flatten(1).double())
    pictures = clips(3)[:, :, 0]
    assert scripted_network(saved(Pixels(), tmp_path / "p.pt"), CPU)(pictures).shape == (3, 3 * 6 * 6)


def test_loading_warns_nobody(tmp_path, recwarn):
    path = saved(Pixels(), tmp_path / "network.pt")
    recwarn.clear()
    scripted_network(path, CPU)(clips(2))
    assert not recwarn.list


@pytest.mark.parametrize("content", ["text", "weights", "folder", "nothing"])
def test_what_is_no_torchscript_is_one_line(content, tmp_path):
    path = tmp_path / "network.pt"
    if content == "text":
        path.write_text("hello")
    elif content == "weights":
        torch.save({"weight": torch.zeros(2)}, path)
    elif content == "folder":
        path.mkdir()
    with pytest.raises(RinError, match="TorchScript") as refused:
        scripted_network(path, CPU)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("part", ["data.pkl", "constants.pkl"])
def test_a_file_that_names_a_python_function_runs_nothing(part, tmp_path):
    saved(Pixels(), tmp_path / "network.pt")
    command = f"touch {tmp_path / 'ran'}".encode()
    evil = b"\x80\x02cos\nsystem\nX" + len(command).to_bytes(4, "little") + command + b"\x85R."
    with zipfile.ZipFile(tmp_path / "network.pt") as good, zipfile.ZipFile(tmp_path / "evil.pt", "w") as bad:
        for name in good.namelist():
            bad.writestr(name, evil if name.endswith(f"/{part}") else good.read(name))
    with pytest.raises(RinError, match=r"os\.system"):
        scripted_network(tmp_path / "evil.pt", CPU)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (Two(), r"gives tuple"),
        (Flat(), r"gives torch.float32 \(4,\)"),
        (Fewer(), r"\(3, 324\) for the features of 4 clips"),
        (Infinite(), r"NaN or infinity"),
        (Features(Means()), r"fails at uint8 4x3x6x6.*"),
    ],
    ids=lambda part: type(part).__name__,
)
def test_what_are_no_features_is_one_line(module, said, tmp_path):
    network = scripted_network(saved(module, tmp_path / "network.pt"), CPU)
    with pytest.raises(RinError, match=said) as refused:
        network(clips(4)[:, :, 0] if isinstance(module, Features) else clips(4))
    assert "\n" not in str(refused.value)


def test_too_few_samples_or_other_features(tmp_path):
    with pytest.raises(RinError, match="1 samples: give 2 or more"):
        frechet_distance(statistics(torch.zeros(1, 3)), statistics(torch.zeros(2, 3)))
    with pytest.raises(RinError, match="3 features beside 4"):
        frechet_distance(statistics(torch.zeros(2, 3)), statistics(torch.zeros(2, 4)))
    with pytest.raises(RinError, match="no clips"):
        feature_statistics([], scripted_network(saved(Pixels(), tmp_path / "network.pt"), CPU))
