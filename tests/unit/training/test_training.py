"""The loop, the held-out loss, checkpoints and the log."""

import dataclasses
import hashlib
import json
import math
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file

from rin.core.errors import RinError
from rin.data import Batch, OpenedData
from rin.data.feeding.media_sets import MediaInMemory
from rin.diffusion import Diffusion, DiffusionConfig
from rin.nn import RIN, RINConfig
from rin.training import checkpoint
from rin.training.config import TrainingConfig
from rin.training.held_out import TIMES, held_out_losses
from rin.training.logging import Log, read_log
from rin.training.status_file import read_status
from rin.training.trainer import Trainer

MODEL = RINConfig(
    shape=(1, 8, 8), patch_size=4, num_classes=3, num_latents=8, latent_dim=32, interface_dim=16,
    compute_depth=(1, 1), num_heads=2, num_read_write_heads=2,
)  # fmt: skip
TRAINING = TrainingConfig(
    num_steps=4, batch_size=12, warmup_steps=0, learning_rate=1e-3, log_every=2, held_out_every=0, sample_every=0,
    checkpoint_every=2,
)  # fmt: skip


def pictures(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
    return MediaInMemory(images, torch.arange(count) % 3, ("a", "b", "c"))


def trainer(folder, training=TRAINING, diffusion=None, model=MODEL, held_out=6, num=30, anew=()):
    torch.manual_seed(0)
    data = OpenedData(training=pictures(num), held_out=pictures(held_out, seed=1))
    folder.mkdir(exist_ok=True)
    diffusion = Diffusion(diffusion or DiffusionConfig())
    return Trainer(training, model.kind, RIN(model), diffusion, data, folder, seed=7, flip=True, anew=anew)


def batch_of(made):
    """The first pictures of the set."""
    examples = torch.arange(12)
    return Batch(*made.data.training.get(examples), examples)


@pytest.mark.parametrize("self_cond_by", ["mask", "share"])
def test_accumulation_changes_a_batch_by_rounding_alone(tmp_path, self_cond_by):
    diffusion = DiffusionConfig(self_cond_by=self_cond_by, self_cond_rate=0.5, label_drop_rate=0.3)
    whole = trainer(tmp_path / "whole", diffusion=diffusion)
    parts = trainer(tmp_path / "parts", dataclasses.replace(TRAINING, accumulation_steps=3), diffusion)
    batch = batch_of(whole)
    for _ in range(3):
        whole.update(batch)
        parts.update(batch)
    assert whole.loss_sum.item() == pytest.approx(parts.loss_sum.item(), abs=1e-5)
    for one, other in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert torch.allclose(one, other, atol=2e-4)


@pytest.mark.parametrize("optimiser", ["lamb", "adamw", "muon"])
def test_clipped_updates_are_those_of_gradients_clipped_by_pytorch(tmp_path, optimiser):
    training = dataclasses.replace(TRAINING, optimiser=optimiser, accumulation_steps=2)
    clipped = trainer(tmp_path / "clipped", dataclasses.replace(training, clip_norm=0.1))
    plain, norms = trainer(tmp_path / "plain", training), []
    batch, honest = batch_of(clipped), plain.weights.take_gradients

    def clipped_by_pytorch():
        norms.append(torch.nn.utils.clip_grad_norm_(plain.model.parameters(), 0.1))
        return honest()

    plain.weights.take_gradients = clipped_by_pytorch
    for step in range(3):
        clipped.update(batch)
        plain.update(batch)
        assert clipped.gradient_norm.item() == pytest.approx(norms[step].item(), rel=1e-5)  # as it was before
    assert max(norms) > 0.1
    for one, other in zip(clipped.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_handful_of_examples_is_overfitted(tmp_path):
    training = dataclasses.replace(
        TRAINING, num_steps=160, learning_rate=1e-2, warmup_steps=10, log_every=20, checkpoint_every=160
    )
    made = trainer(tmp_path, training, DiffusionConfig(prediction="x", loss_space="x", self_cond_rate=0.5))
    made.data.training.pictures[:] = 127 * made.data.training.labels[:, None, None, None]  # the class tells all
    made.run()
    losses = [line["loss"] for line in read_log(tmp_path / "log.jsonl")]
    assert losses[-1] < 0.05 * losses[0]


def test_dropout_differs_from_step_to_step_and_repeats(tmp_path):
    model = dataclasses.replace(MODEL, dropout_rate=0.5)
    one = trainer(tmp_path, model=model)
    batch = batch_of(one)
    first = one.loss.of_part(batch, 0, step=0).item()
    assert one.loss.of_part(batch, 0, step=0).item() == first
    torch.rand(3)  # nobody else's draws matter
    assert one.loss.of_part(batch, 0, step=0).item() == first
    assert one.loss.of_part(batch, 0, step=1).item() != first


def test_blocks_computed_anew_give_the_same_update(tmp_path):
    model = dataclasses.replace(MODEL, dropout_rate=0.3, depth_drop_rate=0.3)
    kept = trainer(tmp_path / "kept", model=model)
    anew = trainer(tmp_path / "anew", dataclasses.replace(TRAINING, recompute_blocks=True), model=model)
    calls = []
    anew.model.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    batch = batch_of(kept)
    for one in (kept, anew):
        one.update(batch)
    assert len(calls) == 3  # the estimate, the main pass, the backward pass
    assert kept.loss_sum.item() == anew.loss_sum.item()
    for one, other in zip(kept.model.parameters(), anew.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_every_line_has_the_mean_loss_since_the_line_before(tmp_path):
    each = dataclasses.replace(TRAINING, log_every=1)
    trainer(tmp_path / "each", each).run()
    trainer(tmp_path / "two").run()
    single = [line["loss"] for line in read_log(tmp_path / "each" / "log.jsonl")]
    double = [line["loss"] for line in read_log(tmp_path / "two" / "log.jsonl")]
    assert double == pytest.approx([sum(single[:2]) / 2, sum(single[2:]) / 2], rel=1e-6)


def test_the_held_out_loss_is_by_noise_level_and_does_not_depend_on_the_batch_size(tmp_path):
    made = trainer(tmp_path)
    made.model.eval()
    few, many = (
        held_out_losses(made.model, made.diffusion, made.kind, made.data.held_out, size, torch.device("cpu"))
        for size in (1, 6)
    )
    assert list(few) == [str(t) for t in TIMES] == [f"0.{tenth}" for tenth in range(1, 10)]
    assert list(few.values()) == pytest.approx(list(many.values()), rel=1e-5)
    assert len(set(few.values())) == len(TIMES)


def test_held_out_losses_are_logged_of_the_average(tmp_path):
    training = dataclasses.replace(TRAINING, held_out_every=4, average_decay=0.0, learning_rate=1e-2)
    made = trainer(tmp_path, training)
    made.run()
    line = read_log(tmp_path / "log.jsonl")[-1]
    found = held_out_losses(made.average.model, made.diffusion, made.kind, made.data.held_out, 12, torch.device("cpu"))
    assert line["held_out_loss_by_t"] == found
    assert line["held_out_loss"] == pytest.approx(sum(found.values()) / 9)


def test_a_checkpoint_has_model_average_and_optimiser_without_pickle(tmp_path):
    trainer(tmp_path).run()
    newest = checkpoint.latest(tmp_path / "checkpoints")
    assert newest is not None
    assert sorted(path.name for path in newest.iterdir()) == [
        "average.safetensors", "model.safetensors", "optimiser.safetensors", "state.json",
    ]  # fmt: skip
    assert json.loads((newest / "state.json").read_text())["state"]["step"] == 4
    assert "blocks.0.read.attention.query.weight/exp_avg" in load_file(newest / "optimiser.safetensors")


def test_further_averages_are_those_of_runs_with_their_decays(tmp_path):
    several = dataclasses.replace(TRAINING, average_decay=0.9, further_decays=(0.5, 0.0), checkpoint_every=2)
    trainer(tmp_path / "several", several).run()
    shutil.rmtree(tmp_path / "several" / "checkpoints" / "step-000000004")
    trainer(tmp_path / "several", several).run()  # goes on from step 2
    files = {0.9: "average", 0.5: "average-0.5", 0.0: "average-0.0"}
    for decay, name in files.items():
        alone = tmp_path / str(decay)
        trainer(alone, dataclasses.replace(TRAINING, average_decay=decay)).run()
        expected, found = (
            load_file(folder / "checkpoints" / "step-000000004" / f"{file}.safetensors")
            for folder, file in ((alone, "average"), (tmp_path / "several", name))
        )
        assert all(torch.equal(found[weight], expected[weight]) for weight in expected)


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    for step in range(1, 6):
        checkpoint.save(tmp_path, step, {"model": {"w": torch.ones(2) * step}}, {"step": step}, keep=2)
    assert [path.name for path in checkpoint.all_checkpoints(tmp_path)] == ["step-000000004", "step-000000005"]
    newest = checkpoint.all_checkpoints(tmp_path)[-1]
    assert checkpoint.read(newest, "model")["w"].tolist() == [5, 5]
    assert checkpoint.state(newest) == {"step": 5}


def test_the_files_of_a_checkpoint_have_the_permissions_that_new_files_have(tmp_path):
    checkpoint.save(tmp_path, 1, {"model": {"w": torch.ones(2)}}, {}, keep=1)
    (tmp_path / "new").touch()
    modes = {path.stat().st_mode for path in (tmp_path / "step-000000001").iterdir()}
    assert modes == {(tmp_path / "new").stat().st_mode}


def test_some_checkpoints_are_kept_for_good(tmp_path):
    for step in range(1, 8):
        checkpoint.save(tmp_path, step, {"model": {"w": torch.ones(2)}}, {}, keep=1, keep_every=3)
    assert [checkpoint.step_of(path) for path in checkpoint.all_checkpoints(tmp_path)] == [3, 6, 7]


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_ones(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 1, {"model": {"w": torch.ones(2)}}, {"step": 1}, keep=2)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_tensors", full)
    with pytest.raises(RinError, match=r"No space left.*step-000000001"):
        checkpoint.save(tmp_path, 2, {"model": {"w": torch.ones(2)}}, {"step": 2}, keep=2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001"]


def test_a_damaged_checkpoint_is_set_aside_by_name_until_the_next_is_written(tmp_path, caplog):
    for step in (1, 2):
        checkpoint.save(tmp_path, step, {"model": {"w": torch.ones(2)}}, {"step": step}, keep=2)
    (tmp_path / "step-000000002" / "model.safetensors").write_bytes(b"nonsense")
    found = checkpoint.newest_whole(tmp_path)
    assert found == tmp_path / "step-000000001"
    assert "step-000000002 is damaged (model.safetensors is not what was written)" in caplog.text
    assert (tmp_path / "step-000000002.damaged").is_dir()
    checkpoint.save(tmp_path, 2, {"model": {"w": torch.ones(2)}}, {"step": 2}, keep=2)
    assert {path.name for path in tmp_path.iterdir()} == {"step-000000001", "step-000000002"}


def pickled(path):
    """What runs code when PyTorch or NumPy unpickle it."""

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(path.parent.parent / "code-was-run"),)

    torch.save({"w": Hostile()}, path)


def write_state(path, stored):
    parts = {name: stored[name] for name in ("files", "shards", "state")}
    (path / "state.json").write_text(json.dumps(checkpoint.sealed(parts)))


def test_a_changed_state_is_noticed(tmp_path):
    path = checkpoint.save(tmp_path, 1, {"model": {"w": torch.ones(2)}}, {"step": 1}, keep=2)
    (path / "state.json").write_text((path / "state.json").read_text().replace('"step": 1', '"step": 3'))
    assert "state.json is not what was written" in str(checkpoint.damage(path))


def test_nothing_in_a_checkpoint_can_run_code(tmp_path):
    path = checkpoint.save(tmp_path, 1, {"model": {"w": torch.ones(2)}}, {"step": 1}, keep=2)
    hostile = path / "model.safetensors"
    pickled(hostile)
    with pytest.raises(RinError, match="step-000000001 is damaged"):
        checkpoint.read(path, "model")
    stored = json.loads((path / "state.json").read_text())
    stored["files"]["model.safetensors"] = hashlib.sha256(hostile.read_bytes()).hexdigest()
    write_state(path, stored)  # even with checksums that fit
    assert checkpoint.damage(path) is None
    with pytest.raises(RinError, match="step-000000001 is damaged"):
        checkpoint.read(path, "model")
    pickled(path / "state.json")
    with pytest.raises(RinError, match="is damaged"):
        checkpoint.newest_whole(tmp_path)
    assert not (tmp_path / "code-was-run").exists()


def test_files_outside_a_checkpoint_are_none_of_it(tmp_path):
    """Names come from outside: one that leads out of the folder is refused, whatever its checksum."""
    path = checkpoint.save(tmp_path, 1, {"model": {"w": torch.ones(2)}}, {"step": 1}, keep=2)
    outside = tmp_path / "outside.safetensors"
    outside.write_bytes(b"x")
    stored = json.loads((path / "state.json").read_text())
    stored["files"]["../outside.safetensors"] = hashlib.sha256(b"x").hexdigest()
    write_state(path, stored)
    assert "outside" in str(checkpoint.damage(path))


@pytest.mark.parametrize("optimiser", ["lamb", "adamw", "muon"])
def test_an_update_that_is_not_finite_changes_nothing_and_is_counted(tmp_path, optimiser):
    made = trainer(tmp_path, dataclasses.replace(TRAINING, optimiser=optimiser))
    beside = trainer(tmp_path, dataclasses.replace(TRAINING, optimiser=optimiser))
    batch = batch_of(made)
    made.update(batch)
    beside.update(batch)
    honest = made.loss.of_examples
    made.loss.of_examples = lambda *given: honest(*given) * float("nan")
    before = [weight.clone() for weight in made.model.parameters()]
    made.update(batch)
    assert all(torch.equal(now, then) for now, then in zip(made.model.parameters(), before, strict=True))
    assert (made.skips.in_a_row(), made.skips.in_all()) == (1, 1)
    assert made.loss_sum.item() == beside.loss_sum.item()
    made.loss.of_examples, made.step = honest, 1
    for one in (made, beside):
        one.update(batch)
    assert (made.skips.in_a_row(), made.skips.in_all()) == (0, 1)
    # moments and the count of updates are those of a run in which it never happened
    for one, other in zip(made.model.parameters(), beside.model.parameters(), strict=True):
        assert torch.equal(one, other)
    made.step = 3  # two made, one skipped
    assert made.record(0.0)["loss"] == pytest.approx(beside.record(0.0)["loss"])


def test_too_many_updates_that_are_not_finite_stop_the_run(tmp_path):
    made = trainer(tmp_path, dataclasses.replace(TRAINING, num_steps=50, log_every=1, checkpoint_every=2))
    honest = made.loss.of_examples
    made.loss.of_examples = lambda *given: honest(*given) * (float("inf") if made.step >= 4 else 1.0)
    with pytest.raises(RinError, match=r"not finite in 3 updates in a row.*number 7 \(examples \d.*step-000000006"):
        made.run()
    lines = read_log(tmp_path / "log.jsonl")
    assert [line["skipped"] for line in lines] == [0, 0, 0, 0, 1, 2]
    assert lines[-1]["loss"] is None
    assert lines[-1]["grad_norm"] is None
    state = read_status(tmp_path)
    assert state is not None
    assert (state.state, state.skipped_updates) == ("failed", 2)
    assert "not finite" in state.message


def test_a_training_set_of_another_size_is_noticed(tmp_path):
    trainer(tmp_path).run()
    with pytest.raises(RinError, match="has 29 examples, and had 30"):
        trainer(tmp_path, num=29).run()


def test_a_log_is_rewound_to_a_step_and_a_torn_line_dropped(tmp_path):
    with (tmp_path / "log.jsonl").open("w") as file:
        file.writelines(json.dumps({"step": step, "loss": 0.1 + 0.2}) + "\n" for step in (1, 2, 3))
        file.write('{"step": 4, "lo')
    Log(tmp_path, 2).close()
    assert read_log(tmp_path / "log.jsonl") == [{"step": step, "loss": 0.1 + 0.2} for step in (1, 2)]


@pytest.mark.parametrize(
    "damage", [b"\xff\xfe\n", b"5\n", b"{}\n", b'"x"\n', b'{"step": "one"}\n', b"[" * 100_000 + b"\n"]
)
def test_damaged_lines_of_a_log_are_passed_over_and_the_others_kept(tmp_path, damage):
    lines = [json.dumps({"step": step, "loss": 0.5}).encode() + b"\n" for step in (1, 2, 3)]
    (tmp_path / "log.jsonl").write_bytes(lines[0] + damage + lines[1] + lines[2])
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == [1, 2, 3]
    Log(tmp_path, 2).close()
    assert (tmp_path / "log.jsonl").read_bytes() == lines[0] + lines[1]


def test_a_checkpoint_of_another_optimiser_or_network_is_refused(tmp_path):
    trainer(tmp_path).run()
    with pytest.raises(RinError, match="step-000000004 was written with lamb, and this run has adamw"):
        trainer(tmp_path, dataclasses.replace(TRAINING, optimiser="adamw")).run()
    with pytest.raises(RinError, match="step-000000004 holds the weights of another network"):
        trainer(tmp_path, model=dataclasses.replace(MODEL, latent_dim=64)).run()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_steps", 0), ("batch_size", 0), ("accumulation_steps", 5), ("learning_rate", 0.0),
        ("average_decay", 1.0), ("further_decays", (1.0,)), ("further_decays", (0.5, 0.5)),
        ("lr_schedule", "exp"), ("keep_checkpoints", 0), ("weight_decay", -1.0),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused_by_name(field, value):
    with pytest.raises(RinError, match="schedule" if field == "lr_schedule" else field):
        dataclasses.replace(TRAINING, **{field: value})


def test_losses_of_the_first_step_are_finite_for_every_prediction(tmp_path):
    for prediction in ("eps", "x", "v"):
        made = trainer(tmp_path, diffusion=DiffusionConfig(prediction=prediction, loss_space="eps"))
        made.update(batch_of(made))
        assert math.isfinite(made.loss_sum.item())
