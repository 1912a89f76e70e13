"""Where a process computes, in which precision, and what compiling does when it cannot."""

import logging

import pytest
import torch
from torch._dynamo.exc import TorchDynamoException

from rin.core import compute
from rin.core.compute import autocast_to, compiled, compiles, uses_bfloat16
from rin.core.errors import RinError
from rin.data import on_device
from rin.data.feeding.media_sets import MediaInMemory

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("choice", "on_cpu", "on_cuda"), [("auto", False, True), ("on", True, True), ("off", False, False)]
)
def test_compiling_is_for_cuda_unless_asked(choice, on_cpu, on_cuda):
    assert compiles(choice, CPU) is on_cpu
    assert compiles(choice, CUDA) is on_cuda


def test_bfloat16_is_for_gpus_and_processors_that_have_it(monkeypatch):
    for able in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda able=able: able)
        assert uses_bfloat16("auto", CUDA) is able
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda able=able: able)
        assert uses_bfloat16("auto", CPU) is able
    assert not uses_bfloat16("auto", torch.device("mps"))
    assert not uses_bfloat16("float32", CPU)
    assert uses_bfloat16("bfloat16", CPU)
    with pytest.raises(RinError, match="this GPU has none"):
        uses_bfloat16("bfloat16", CUDA)


def test_autocast_is_there_when_asked():
    a = torch.ones(2, 2)
    with autocast_to(True, CPU):
        assert (a @ a).dtype == torch.bfloat16
    with autocast_to(False, CPU):
        assert (a @ a).dtype == torch.float32


@pytest.fixture
def said(monkeypatch, caplog):
    monkeypatch.setattr(compute, "_COMPILED", set())
    caplog.set_level(logging.INFO, logger="rin")
    return caplog


def test_compiling_says_so_once_for_each_shape(monkeypatch, said):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda function, **options: asked.append(options) or function)
    double = compiled(lambda x: 2 * x, "the doubling")
    for shape in ((2,), (2,), (3,)):
        assert torch.equal(double(torch.ones(shape)), torch.full(shape, 2.0))
    assert asked == [{"dynamic": False, "mode": None}]
    assert sum("compiling the doubling" in message for message in said.messages) == 2


def test_without_a_compiler_it_goes_on_with_one_line(monkeypatch, said):
    def fails(*_):
        raise TorchDynamoException("no working C++ compiler\nand fifty lines more")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: fails)
    double = compiled(lambda x: 2 * x, "the doubling")
    for _ in range(2):
        assert double(torch.ones(())) == 2
    (warning,) = [record.getMessage() for record in said.records if record.levelno == logging.WARNING]
    assert warning == "compiling the doubling failed, going on without: no working C++ compiler"


def test_a_set_in_memory_moves_to_a_gpu_that_has_room(monkeypatch):
    images = MediaInMemory(torch.zeros(10, 1, 2, 2, dtype=torch.uint8), torch.zeros(10, dtype=torch.int64), ())
    moved = MediaInMemory(images.pictures, images.labels, ())
    monkeypatch.setattr(MediaInMemory, "to", lambda *_: moved)
    assert on_device(images, CPU) is images
    for free, expected in ((320, moved), (319, images)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, 1000))
        assert on_device(images, CUDA) is expected
