"""Files of arrays from strangers: kept references and pictures, which claim what they are not, or are what is none."""

import io
import json
import os
import zipfile

import numpy as np
import pytest
import torch

from rin import RinError
from rin.core import npz
from rin.evaluation import images as assessment
from rin.evaluation.features import FeatureNetwork
from rin.evaluation.images import given_samples
from rin.evaluation.reference import read_reference

NETWORK = FeatureNetwork("none", {"sha256": "abc"}, torch.device("cpu"), lambda media: media)
DIM = 6


def good(**changes):
    """The arrays of a kept reference."""
    features = np.random.default_rng(0).standard_normal((20, DIM)).astype(np.float32)
    arrays = {
        "mu": features.mean(0, dtype=np.float64), "sigma": np.cov(features, rowvar=False), "n": np.array(20),
        "features": features, "radii": np.ones((2, 20)), "told": np.array(json.dumps({"set": "x"})),
    }  # fmt: skip
    return {name: value for name, value in (arrays | changes).items() if value is not None}


def npy(array, **header):
    """An array as a file, whose header may claim another shape."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, np.lib.format.header_data_from_array_1_0(array) | header)
    return buffer.getvalue() + array.tobytes()


def zipped(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def refusal(call, *arguments):
    with pytest.raises(RinError) as refused:
        call(*arguments)
    line = str(refused.value)
    assert line.isprintable()
    assert len(line) < 400
    return line


def sigma(change):
    matrix = np.eye(DIM)
    change(matrix)
    return matrix


def put(matrix, place, value):
    matrix[place] = value


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"features": None, "radii": None, "told": None, "n": None},
        {"sigma": np.cov(np.ones((3, DIM)), rowvar=False)},
        {"sigma": np.cov(np.random.default_rng(1).standard_normal((3, DIM)), rowvar=False)},
        {"mu": np.zeros(DIM, np.float16), "sigma": np.eye(DIM, dtype=np.float16)},
        {"n": np.array(20.0)},
        {"arr_0": np.zeros((2, 3), object)},
        {"../../mu": np.zeros(3)},
    ],
)
def test_statistics_of_any_program_are_read(tmp_path, changes):
    np.savez(tmp_path / "a.npz", **good(**changes))
    read = read_reference(tmp_path / "a.npz", NETWORK)
    np.testing.assert_allclose(read.statistics.covariance, good(**changes)["sigma"], atol=1e-12)
    assert read.description["file"] == "a.npz"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mu": np.full(DIM, np.nan)}, "mu has NaN"),
        ({"mu": np.full(DIM, np.inf)}, "mu has NaN or infinity"),
        ({"sigma": np.full((DIM, DIM), np.nan)}, "sigma has NaN"),
        ({"sigma": sigma(lambda matrix: put(matrix, (0, 1), 0.5))}, "not symmetric"),
        ({"sigma": -np.eye(DIM)}, "below 0"),
        ({"sigma": sigma(lambda matrix: put(matrix, (2, 2), -0.1))}, "below 0"),
        ({"sigma": sigma(lambda matrix: [put(matrix, place, 2) for place in ((0, 1), (1, 0))])}, "below 0"),
        ({"sigma": np.eye(DIM + 1)}, "sigma has (7, 7), where (6, 6)"),
        ({"sigma": np.zeros(DIM)}, "sigma has (6,)"),
        ({"sigma": None}, "it has no sigma"),
        ({"mu": None}, "it has no mu"),
        ({"mu": np.zeros((1, DIM))}, "mu has (1, 6)"),
        ({"mu": np.zeros(0), "sigma": np.zeros((0, 0))}, "mu has (0,)"),
        ({"mu": np.zeros(DIM, np.int64)}, "mu is stored as int64"),
        ({"mu": np.zeros(DIM, bool)}, "mu is stored as bool"),
        ({"mu": np.zeros(DIM, complex)}, "mu is stored as complex128"),
        ({"mu": np.zeros(DIM, object)}, "mu is stored as object"),
        ({"mu": np.zeros(DIM, np.longdouble)}, "mu is stored as float128"),
        ({"features": np.zeros((20, DIM), np.longdouble)}, "features is stored as float128"),
        ({"mu": np.zeros(DIM, [("a", "f8")])}, "mu is stored as"),
        ({"n": np.array(1)}, "n is 1"),
        ({"n": np.array(-3)}, "n is -3"),
        ({"n": np.array(2.5)}, "n is 2.5"),
        ({"n": np.array(np.nan)}, "n is nan"),
        ({"n": np.ones(3)}, "n has (3,)"),
        ({"n": np.array("20")}, "n is stored as <U2"),
        ({"features": np.zeros((20, DIM + 1))}, "features has (20, 7)"),
        ({"features": np.full((20, DIM), np.nan)}, "features has NaN"),
        ({"features": np.array(1.0)}, "features has ()"),
        ({"radii": np.ones((2, 19))}, "radii has (2, 19)"),
        ({"told": np.array("[]")}, "no dictionary"),
        ({"told": np.array("[" * 100_000)}, "levels"),
        ({"told": np.array('{"a": NaN}')}, "NaN is no number"),
        ({"told": np.array(["{}"])}, "told has (1,)"),
        ({"told": np.array('{"network_sha256": "other"}')}, "another feature network"),
    ],
)
def test_statistics_that_are_none_are_one_line(tmp_path, changes, said):
    np.savez(tmp_path / "a.npz", **good(**changes))
    assert said in refusal(read_reference, tmp_path / "a.npz", NETWORK)


def members(**changes):
    arrays = good() | changes
    return [(f"{name}.npy", value if isinstance(value, bytes) else npy(value)) for name, value in arrays.items()]


CLAIMS = {
    "39 GB of nothing": members(mu=npy(np.zeros(4), shape=(69_000,)), sigma=npy(np.zeros(4), shape=(69_000, 69_000))),
    "a shape that is not there": members(sigma=npy(np.zeros(4), shape=(DIM, DIM))),
    "more than there is": members(features=npy(np.zeros((20, DIM)), shape=(20_000, DIM))),
    "less than there is": members(mu=npy(np.zeros(2 * DIM), shape=(DIM,))),
    "too many features": members(mu=np.zeros(20_000), sigma=npy(np.zeros(4), shape=(20_000, 20_000))),
    "below nothing": members(mu=npy(np.zeros(DIM), shape=(-DIM,))),
    "no header": members(mu=b"not an array"),
    "half a header": members(mu=npy(np.zeros(DIM))[:30]),
    "a header that runs": members(mu=npy(np.zeros(DIM)).replace(b"'descr': '<f8'", b"'descr': 1/0  ")),
    "a header without end": members(mu=b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + b" " * 1000),
    "an unknown format": members(mu=b"\x93NUMPY\x09\x00" + npy(np.zeros(DIM))[8:]),
    "a pickle": members(mu=b"cos\nsystem\n(S'true'\ntR."),
    "a name twice": [*members(), ("mu.npy", npy(np.zeros(DIM)))],
    "the same name with and without its ending": [*members(), ("mu", npy(np.zeros(DIM)))],
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("claim", CLAIMS)
def test_what_an_array_claims_is_checked_before_it_is_read(tmp_path, claim, monkeypatch):
    path = zipped(tmp_path / "a.npz", CLAIMS[claim])
    monkeypatch.setattr(npz, "_read", lambda *_: pytest.fail("it is read"))
    assert "a.npz holds no statistics of a reference set" in refusal(read_reference, path, NETWORK)


def test_what_cannot_be_in_so_few_bytes_is_not_read(tmp_path):
    """The sizes in a zip's own list are claims, too."""
    path = zipped(tmp_path / "a.npz", members(features=np.zeros((50_000, DIM))), zipfile.ZIP_DEFLATED)
    content = path.read_bytes()
    size = (50_000 * DIM * 8 + 128).to_bytes(4, "little")
    assert content.count(size) >= 1
    path.write_bytes(content.replace(size, (2**31).to_bytes(4, "little")))
    assert "not there" in refusal(read_reference, path, NETWORK)


@pytest.mark.parametrize(
    "read", [lambda path: read_reference(path, NETWORK), lambda path: given_samples(path, None, None)]
)
def test_what_does_not_fit_in_memory_is_not_read(tmp_path, read, monkeypatch):
    np.savez(tmp_path / "a.npz", **good(), images=np.zeros((10, 8, 8, 3), np.uint8))
    monkeypatch.setattr(npz, "memory_here", lambda: 500)
    assert "it would take" in refusal(read, tmp_path / "a.npz")


@pytest.mark.parametrize("content", [b"", b"PK", b"\x93NUMPY", npy(np.zeros(3)), b"x" * 1000])
@pytest.mark.parametrize(
    "read", [lambda path: read_reference(path, NETWORK), lambda path: given_samples(path, None, None)]
)
def test_what_is_no_npz_is_one_line(tmp_path, read, content):
    (tmp_path / "a.npz").write_bytes(content)
    assert "a.npz" in refusal(read, tmp_path / "a.npz")


def test_a_damaged_npz_is_one_line(tmp_path):
    path = zipped(tmp_path / "a.npz", members(), zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    for place in range(100, len(content) // 2, 7):
        content[place] ^= 0xFF
    path.write_bytes(content)
    assert "a.npz" in refusal(read_reference, path, NETWORK)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"images": np.zeros((2, 8, 8, 3))}, "images is stored as float64"),
        ({"images": np.zeros((2, 8, 8, 3), np.uint16)}, "uint16 (2, 8, 8, 3)"),
        ({"images": np.zeros((8, 8, 3), np.uint8)}, "uint8 (8, 8, 3)"),
        ({"images": np.zeros((2, 8, 8, 2), np.uint8)}, "uint8 (2, 8, 8, 2)"),
        ({"images": np.zeros((2, 8, 8, 3), np.uint8), "labels": np.zeros((2, 1), int)}, "labels have (2, 1)"),
        ({"images": np.zeros((2, 8, 8, 3), np.uint8), "labels": np.zeros(2)}, "labels is stored as float64"),
        ({"images": np.zeros((2, 8, 8, 3), np.uint8), "labels": np.zeros(3, int)}, "labels have (3,) for 2 pictures"),
        ({"images": np.zeros((2, 8, 8, 3), np.uint8), "labels": np.zeros(1, int)}, "labels have (1,) for 2 pictures"),
        ({"images": np.zeros((2, 8, 8, 3), np.uint8), "labels": np.array([0, -1])}, "the label -1"),
        ({"images": np.zeros((2, 0, 8, 3), np.uint8)}, "its pictures have (0, 8) pixels"),
        ({"images": np.zeros(2, object)}, "images is stored as object"),
        ({"pictures": np.zeros((2, 8, 8, 3), np.uint8)}, "neither images nor arr_0"),
    ],
)
def test_pictures_that_are_none_are_one_line(tmp_path, arrays, said):
    np.savez(tmp_path / "a.npz", **arrays)
    assert said in refusal(given_samples, tmp_path / "a.npz", None, None)


@pytest.mark.parametrize("put", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
@pytest.mark.parametrize(
    "read", [lambda path: read_reference(path, NETWORK), lambda path: given_samples(path.parent, None, None)]
)
def test_what_is_no_file_is_not_waited_for(tmp_path, read, put):
    put(tmp_path / "a.npz")
    assert "it is no file" in refusal(read, tmp_path / "a.npz")


@pytest.mark.parametrize("dtype", [">f8", ">f4", "<f2", ">f2"])
def test_arrays_of_another_machine_are_what_they_were(tmp_path, dtype):
    np.savez(tmp_path / "a.npz", **good(mu=good()["mu"].astype(dtype), features=np.asfortranarray(good()["features"])))
    read = read_reference(tmp_path / "a.npz", NETWORK)
    np.testing.assert_allclose(read.statistics.mean, good()["mu"], atol=1e-2)
    np.testing.assert_array_equal(read.features, good()["features"])


def test_files_that_fit_one_by_one_must_fit_together(tmp_path, monkeypatch):
    for name in ("a", "b", "c"):
        np.savez(tmp_path / f"{name}.npz", images=np.zeros((5, 8, 8, 3), np.uint8))
    monkeypatch.setattr(assessment, "memory_here", lambda: 12 * 8 * 8 * 3)
    assert "more pictures than this machine has memory for" in refusal(given_samples, tmp_path, None, None)
