"""Measures through torch-fidelity's own networks, beside torch-fidelity's own measures."""

import importlib
import json
import os
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from rin.cli import main
from rin.core.errors import RinError
from rin.evaluation.features import FIDELITY, feature_network, fidelity_network

INCEPTION, CPU = "inception-v3-compat", torch.device("cpu")
WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"


@pytest.fixture(scope="module")
def library():
    """torch-fidelity, its Inception made for small pictures, beside a torchvision that has names and nothing else."""
    names = ("torchvision", "torchvision.datasets", "torchvision.transforms", "torchvision.transforms.functional")
    modules = {name: types.ModuleType(name) for name in names}
    for name in ("CIFAR10", "STL10", "CIFAR100"):
        setattr(modules["torchvision.datasets"], name, object)
    modules["torchvision"].transforms = modules["torchvision.transforms"]
    modules["torchvision.transforms"].functional = modules["torchvision.transforms.functional"]
    modules["torchvision.transforms.functional"].normalize = lambda x, *_, **__: x / 255
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        patch.syspath_prepend(Path(sys.prefix) / "fidelity")  # where make setup has put it
        found = importlib.import_module("torch_fidelity")
        patch.setattr(found.FeatureExtractorInceptionV3, "INPUT_IMAGE_SIZE", 75)
        yield found
    for name in [name for name in sys.modules if name.partition(".")[0] == "torch_fidelity"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def cache(library, tmp_path_factory):
    """PyTorch's cache, with drawn weights in the place of Inception's."""
    folder = tmp_path_factory.mktemp("cache")
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        module = sys.modules[library.FeatureExtractorInceptionV3.__module__]
        patch.setattr(module, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(library.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        network = library.FeatureExtractorInceptionV3(INCEPTION, ["2048"])
        for part in network.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight)
        network.fc.weight.mul_(100)  # so that it is sure of its classes
        (folder / "hub" / "checkpoints").mkdir(parents=True)
        torch.save(network.state_dict(), folder / "hub" / "checkpoints" / WEIGHTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(folder))
        yield folder


def pictures(num, seed):
    """Smooth ones (n 32 32 3), unlike from seed to seed."""
    draw = torch.Generator().manual_seed(seed)
    small = torch.rand(num, 3, 6, 6, generator=draw) ** (1 + seed)
    return (255 * nn.functional.interpolate(small, size=32, mode="bilinear")).byte().movedim(1, -1).numpy()


class Dataset(torch.utils.data.Dataset):
    def __init__(self, images):
        self.images = torch.from_numpy(images).movedim(-1, 1)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, place):
        return self.images[place]


@pytest.mark.usefixtures("cache")
def test_measures_are_those_of_torch_fidelity(library, tmp_path, monkeypatch):
    monkeypatch.setitem(FIDELITY, INCEPTION, ["64", "logits_unbiased"])  # of 2048 features SciPy's root takes a minute
    real, drawn = pictures(80, 0), pictures(80, 1)
    drawn[:30] = np.clip(real[:30].astype(int) + 3, 0, 255)  # so that they overlap
    (tmp_path / "real").mkdir()
    for number, picture in enumerate(real):
        Image.fromarray(picture).save(tmp_path / "real" / f"{number:02d}.png")
    np.savez(tmp_path / "drawn.npz", images=drawn)
    options = ("--features", INCEPTION, "--reference", tmp_path / "real", "--out", tmp_path / "found.json")
    with pytest.raises(SystemExit) as left:
        main(["evaluate", *map(str, (tmp_path / "drawn.npz", *options))])
    assert left.value.code == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["protocol"]["features"]["network"] == INCEPTION
    assert found["protocol"]["features"]["torch_fidelity"] == library.__version__

    in_our_parts = np.concatenate([drawn[part::10] for part in range(10)])
    layers = {f"feature_layer_{metric}": "64" for metric in ("fid", "kid", "prc")}
    theirs = library.calculate_metrics(
        input1=Dataset(in_our_parts), input2=Dataset(real), cuda=False, batch_size=40, verbose=False, cache=False,
        fid=True, isc=True, kid=True, prc=True, feature_extractor=INCEPTION, **layers, save_cpu_ram=True,
        samples_shuffle=False, isc_splits=10, kid_subsets=1, kid_subset_size=80,
    )  # fmt: skip
    assert 0 < found["precision"] < 1
    assert 0 < found["recall"] < 1
    assert (found["precision"], found["recall"]) == pytest.approx((theirs["precision"], theirs["recall"]), abs=1e-6)
    assert found["frechet_distance"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-4)
    assert found["kernel_distance"]["value"] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)
    score = found["inception_score"]
    assert (score["value"], score["deviation"]) == pytest.approx(
        (theirs["inception_score_mean"], theirs["inception_score_std"]), rel=1e-4
    )
    assert score["value"] > 1.01


def test_published_measures_layers_are_taken(library):
    inception = library.FeatureExtractorInceptionV3
    assert FIDELITY[INCEPTION] == [inception.get_default_feature_layer_for_metric(name) for name in ("fid", "isc")]
    dino = sys.modules["torch_fidelity.feature_extractor_dinov2"]
    assert set(FIDELITY) - {INCEPTION} == set(dino.MODEL_METADATA)
    network = library.FeatureExtractorDinoV2
    assert all(layers == ["dinov2"] for name, layers in FIDELITY.items() if name != INCEPTION)
    assert network.get_default_feature_layer_for_metric("fid") == "dinov2"


@pytest.mark.usefixtures("library")
def test_dinov2_gives_features_and_no_logits(monkeypatch):
    asked = []

    def load(*names):
        asked.append(names)
        return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())

    monkeypatch.setattr(torch.hub, "load", load)
    network = feature_network("dinov2-vit-l-14", CPU)
    assert asked == [("facebookresearch/dinov2", "dinov2_vitl14")]
    features, logits = network.with_logits(torch.zeros(3, 3, 8, 8, dtype=torch.uint8))
    assert features.shape == (3, 12)
    assert logits is None


@pytest.mark.usefixtures("library")
def test_weights_that_are_more_than_weights_are_refused(monkeypatch, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save({"weight": Evil()}, tmp_path / "hub" / "checkpoints" / WEIGHTS)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    with pytest.raises(RinError, match="cannot load inception-v3-compat") as refused:
        fidelity_network(INCEPTION, CPU)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "ran").exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


@pytest.mark.usefixtures("library")
def test_weights_that_cannot_be_had_are_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def unreachable(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(RinError, match="torch-fidelity cannot load inception-v3-compat: no route to host"):
        fidelity_network(INCEPTION, CPU)


@pytest.mark.usefixtures("cache")
def test_grey_pictures_are_one_line():
    with pytest.raises(RinError, match="fails at uint8 2x1x8x8: Input is not Bx3xHxW"):
        fidelity_network(INCEPTION, CPU)(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))


def test_without_torch_fidelity_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(RinError, match=r'pip install "rin-diffusion\[fidelity\]"'):
        feature_network(INCEPTION, CPU)


def test_other_names_are_told_what_there_is():
    with pytest.raises(RinError, match=r"no feature network at inception: .*inception-v3-compat"):
        feature_network("inception", CPU)
