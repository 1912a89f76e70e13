"""torch.compile gives the same numbers. Dynamo does not take the shape checks' hook: the Makefile runs this without."""

import dataclasses

import pytest
import torch

from rin.core.denoiser import Condition
from rin.data import Batch
from rin.diffusion import Diffusion, DiffusionConfig
from rin.nn import RIN
from tests.end_to_end.commands import rin, together
from tests.end_to_end.test_processes import TRAIN, assert_same_losses, log, succeed
from tests.reference import test_reference as reference
from tests.reference.case import case_files
from tests.unit.training.test_adapters import made as made_with_adapters
from tests.unit.training.test_training import MODEL, TRAINING, pictures, trainer

pytestmark = [
    pytest.mark.compiling,
    pytest.mark.skipif(hasattr(RIN.forward, "__wrapped__"), reason="runs without the shape checks' hook"),
    pytest.mark.filterwarnings("default"),  # PyTorch warns of itself while it compiles
]

NETWORKS = {"image", "video", "tokens", "sample", "train"}


def marked(path):
    return pytest.param(path, id=path.stem, marks=[] if path.stem == "train_lamb" else [pytest.mark.slow])


@pytest.fixture(autouse=True)
def _one_compilation_a_shape():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


def graph_breaks():
    return dict(torch._dynamo.utils.counters["graph_break"])


@pytest.mark.parametrize("path", [marked(path) for path in case_files() if path.stem.split("_")[0] in NETWORKS])
def test_the_authors_numbers_hold_compiled(path, monkeypatch):
    eager = reference.load

    def load(case):
        model = eager(case)
        model.compile(dynamic=False)
        return model

    monkeypatch.setattr(reference, "load", load)
    reference.check(path)


def test_a_compiled_run_is_the_eager_one_but_for_rounding(tmp_path):
    diffusion = DiffusionConfig(self_cond_by="share", self_cond_rate=0.5, label_drop_rate=0.3)
    network = dataclasses.replace(MODEL, compute_depth=(1,))  # the authors' numbers above are those of two blocks
    eager = trainer(tmp_path / "eager", diffusion=diffusion, model=network)
    compiled = trainer(tmp_path / "compiled", dataclasses.replace(TRAINING, compile="on"), diffusion, network)
    batch = Batch(*pictures(12).get(torch.arange(12)), torch.arange(12))
    for one in (eager, compiled):
        for _ in range(3):
            one.update(batch)
    assert not graph_breaks()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1  # the step's number is no constant
    assert compiled.loss_sum.item() == pytest.approx(eager.loss_sum.item(), abs=1e-5)
    weights = dict(compiled.model.named_parameters())
    for name, weight in eager.model.named_parameters():
        if not name.endswith("key.bias"):  # its gradient is rounding alone, which LAMB makes large
            assert torch.allclose(weight, weights[name], atol=1e-4), name

    model, process = RIN(network).eval(), Diffusion(DiffusionConfig())
    shape, condition = (4, *network.shape), Condition(labels=torch.tensor([0, 1, 2, 0]))
    for seed in (0, 1):  # the second run of steps takes what the first has compiled
        seeds = [4 * seed + number for number in range(4)]
        samples = [
            process.sample(model, shape, condition, num_steps=5, seeds=seeds, compile=asked) for asked in (False, True)
        ]
        assert torch.allclose(*samples, atol=1e-5)
    assert not graph_breaks()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2


def test_a_compiled_run_with_adapters_is_the_eager_one_but_for_rounding(tmp_path):
    network = dataclasses.replace(MODEL, compute_depth=(1,))
    runs = [made_with_adapters(tmp_path / choice, model=network, compile=choice) for choice in ("off", "on")]
    batch = Batch(*pictures(12).get(torch.arange(12)), torch.arange(12))
    for one in runs:
        for _ in range(3):
            one.update(batch)
    assert not graph_breaks()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    eager, compiled = runs
    assert compiled.loss_sum.item() == pytest.approx(eager.loss_sum.item(), abs=1e-5)
    before = made_with_adapters(tmp_path / "before", model=network).average.model
    weights = dict(compiled.average.model.named_parameters())
    for name, weight in eager.average.model.named_parameters():
        assert torch.allclose(weight, weights[name], atol=1e-4), name
    assert not torch.equal(before.tokenizer.patch.weight, compiled.average.model.tokenizer.patch.weight)


@pytest.mark.slow
def test_each_number_of_latents_is_compiled_once(tmp_path):
    network = dataclasses.replace(MODEL, compute_depth=(1,), num_latents_min=MODEL.num_latents - 1)
    drawn = dataclasses.replace(TRAINING, all_latents_every=0)  # six updates then have both numbers
    eager = trainer(tmp_path / "eager", drawn, model=network)
    compiled = trainer(tmp_path / "compiled", dataclasses.replace(drawn, compile="on"), model=network)
    batch = Batch(*pictures(12).get(torch.arange(12)), torch.arange(12))
    for one in (eager, compiled):
        counts = []
        for _ in range(6):
            counts.append(one.loss.num_latents(one.step))
            one.update(batch)
        assert set(counts) == set(network.latent_counts) == {MODEL.num_latents - 1, MODEL.num_latents}
    assert not graph_breaks()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    assert compiled.loss_sum.item() == pytest.approx(eager.loss_sum.item(), abs=1e-5)

    model, process, shape = RIN(network).eval(), Diffusion(DiffusionConfig()), (4, *network.shape)
    options = {
        "num_steps": 6,
        "seeds": range(4),
        "num_latents": [(0.5, network.num_latents_min), (1.0, network.num_latents)],
    }
    samples = [process.sample(model, shape, **options, compile=asked) for asked in (False, True)]
    assert torch.allclose(*samples, atol=1e-5)
    assert not graph_breaks()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_compiled_processes_have_the_losses_of_one(tmp_path, parallel):
    command = [*TRAIN, "--training.optimiser", "adamw", "--training.accumulation-steps", "2"]
    succeed([rin(*command, "--out", tmp_path / "one")])
    options = ["--training.compile", "on", "--training.parallel", parallel]
    results = together(2, *command, *options, "--out", tmp_path / "two")
    succeed(results)
    assert "compiled the training step in" in results[0].stderr
    assert "going on without" not in results[0].stderr
    # no weight norm: gradients of key biases are rounding alone, which Adam makes as large as others
    assert_same_losses(log(tmp_path / "one"), log(tmp_path / "two"), {"loss", "grad_norm", "held_out_loss"}, 1e-4)
