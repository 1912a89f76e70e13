"""A network for programs without rin: it answers and draws as ours does, and what cannot be exported is one line."""

import copy
import importlib
import json
import math
import subprocess
import sys
from dataclasses import replace

import jaxtyping
import numpy as np
import pytest
import torch

from rin import RIN, Condition, Denoised, Diffusion, RinError
from rin.cli.export import export as command
from rin.core.kind import Kind
from rin.core.values import FLOATS, PICTURES
from rin.diffusion import DiffusionConfig
from rin.diffusion.schedules import parse_schedule
from rin.interop import export
from rin.interop.exporting import files, sample
from rin.interop.exporting.network import OnePass
from rin.nn.tokenizers import Tokenizer
from tests.unit.models import VIDEO, moved, small, trained

STEPS = 25
ROUNDING = 0.1 / 127.5
"""A tenth of a grey level, in [-1, 1]: a mistake in a step would be more, and the promise is one level."""

SHORT = {"compute_depth": (1,)}
DIFFUSION = DiffusionConfig(label_drop_rate=0.1, num_steps=STEPS, sampler="ddim")
MODELS = {
    "image": (
        small(mixing_size=3),
        replace(DIFFUSION, guidance_latents="own", guidance=2.5, guidance_interval=(0.3, 3.0)),
    ),
    "clip": (small(**VIDEO, **SHORT), replace(DIFFUSION, prediction="v", input_scale=0.7, normalise_input=True)),
    "set": (
        small(shape=(9, 7), num_classes=0, **SHORT),
        replace(DIFFUSION, prediction="x", sampling_schedule="karras"),
    ),
    "signal": (
        small(shape=(2, 1, 16), num_classes=0, caption_length=5, **SHORT),
        replace(DIFFUSION, prediction="v", sampling_schedule="sigmoid@-3,3,0.9"),
    ),
}
"""One of each kind, with classes or captions, every prediction, and schedules of each sort."""


class Exports:
    """Each of `MODELS`, exported once."""

    def __init__(self, folder):
        self.folder, self.done = folder, {}

    def __call__(self, name):
        if name not in self.done:
            config, diffusion = MODELS[name]
            with pytest.MonkeyPatch.context() as patch:
                if name == "set":
                    patch.setattr(files, "_MOST_IN_ONE_FILE", 0)  # as of a network of gigabytes
                self.done[name] = One(moved(config), Diffusion(diffusion), self.folder / name)
        return self.done[name]


class One(torch.nn.Module):
    """A network and what was exported of it; called, it is a denoiser by onnxruntime."""

    def __init__(self, model, diffusion, folder):
        import onnxruntime

        super().__init__()
        self.ours, self.diffusion, self.kind = model, diffusion, model.config.kind
        self.exported = export(model, diffusion, folder, values=FLOATS)
        self.file = self.exported.files[0]
        self.config = json.loads(self.file.with_suffix(".json").read_text())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(self.file, options)

    def forward(self, x, gamma, condition=None, latents_prev=None):
        if latents_prev is None:
            latents_prev = torch.zeros(len(x), *self.config["latents"])
        given = {"x": x, "gamma": gamma, "latents_prev": latents_prev, **self.inputs(condition)}
        answer = self.session.run(None, {name: value.numpy() for name, value in given.items()})
        return Denoised(*map(torch.from_numpy, answer))

    def inputs(self, condition):
        """A condition as the exported network is given it."""
        parts = {"labels": condition.labels, "context": condition.context}
        if condition.embeddings is not None:
            places = condition.embeddings[..., :256].argmax(dim=2).to(torch.uint8)
            parts["texts"] = torch.where(condition.embedding_mask, places, 0)
        return {name: part for name, part in parts.items() if part is not None}

    def noise_and_condition(self, num=3):
        draw = torch.Generator().manual_seed(5)
        noise = torch.randn(num, *self.kind.shape, generator=draw)
        kind = Kind.reading(self.kind, ["red", "é", ""]) if self.kind.caption_length else self.kind
        context = None
        if kind.num_context_frames:
            frames = kind.with_frames(kind.num_context_frames)
            context = torch.rand(num, *frames, generator=draw) * 2 - 1
        return noise, kind.condition(torch.arange(num), context)

    def drawn(self, model, **options):
        noise, condition = self.noise_and_condition()
        return self.diffusion.sample(model, noise.shape, condition, noise=[noise], **options)


@pytest.fixture(scope="module", autouse=True)
def traced_without_checks():
    """PyTorch traces a network with sizes that are symbols, which are no `int` to who checks signatures."""

    def unchecked(*arguments, **options):
        jaxtyping.config.update("jaxtyping_disable", True)
        try:
            return honest(*arguments, **options)
        finally:
            jaxtyping.config.update("jaxtyping_disable", False)

    honest = torch.export.export
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.export, "export", unchecked)
        yield


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return Exports(tmp_path_factory.mktemp("exported"))


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp-2m"])
@pytest.mark.parametrize("name", MODELS)
def test_onnxruntime_and_the_sampler_in_numpy_draw_what_we_draw(exported, name, sampler):
    one = exported(name)
    guidance = 0.0 if name == "set" else 1.5
    ours = one.drawn(one.ours, sampler=sampler, guidance=guidance)
    assert ours.std() > 0.1
    theirs = one.drawn(one, sampler=sampler, guidance=guidance)
    assert (theirs - ours).abs().max() <= ROUNDING

    noise, condition = one.noise_and_condition()
    condition = one.diffusion.scaled(condition)
    given, nothing = (
        {key: value.numpy() for key, value in one.inputs(each).items()} for each in (condition, condition.null())
    )
    config = one.config | {"sampler": sampler}
    found = sample.draw(one.session, config, noise.numpy(), given, nothing, STEPS, guidance)
    assert found.dtype == np.float32
    assert np.abs(found - ours.numpy()).max() <= ROUNDING
    other = sample.draw(one.session, config | {"sampler": "ddim"}, noise.numpy(), given, nothing, STEPS, 0.0)
    if guidance or sampler != "ddim":
        assert np.abs(found - other).max() > ROUNDING


@pytest.mark.parametrize("name", MODELS)
def test_any_number_of_examples_is_answered_as_by_pytorch(exported, name):
    one = exported(name)
    one_pass = OnePass(one.ours)
    assert one.exported.difference < 1e-3
    for batch in (1, 2, 7):
        given = one_pass.inputs(batch)
        found = one.session.run(None, {key: value.numpy() for key, value in given.items()})
        for ours, theirs in zip(one_pass(**given), found, strict=True):
            assert ours.abs().max() > 0.5
            assert torch.allclose(ours, torch.from_numpy(theirs), atol=1e-4)
    shapes = {each.name: each.shape for each in one.session.get_inputs()}
    assert {shape[0] for shape in shapes.values()} == {"batch"}
    assert {each.type for each in one.session.get_outputs()} == {"tensor(float)"}


@pytest.mark.parametrize(("name", "beside"), [("image", []), ("set", ["model.onnx.data"])])
def test_the_files_are_those_that_are_named(exported, name, beside):
    named = [file.name for file in exported(name).exported.files]
    assert named[0] == "model.onnx"
    assert sorted(named) == sorted(["model.onnx", "model.json", "sample.py", *beside])
    assert sorted(file.name for file in exported(name).file.parent.iterdir()) == sorted(named)


SCHEDULES = [
    "cosine", "cosine@0.2,1,1.5", "cosine@0,1,3", "sigmoid@-3,3,0.9", "sigmoid@0,3,0.3", "linear", "karras",
    "karras@0.01,40,5", "log-snr", "log-snr@0.01,40",
]  # fmt: skip


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_is_ours(schedule):
    times = np.linspace(1, 0, 101)
    ours = parse_schedule(schedule)(torch.from_numpy(times)).numpy()
    assert np.allclose(sample.gamma_of(times, schedule), ours, rtol=1e-6, atol=1e-7)


WITHOUT_TORCH = """
import runpy, sys
sys.modules.update(dict.fromkeys(["torch", "rin"]))  # importing them is an error
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(one, *arguments):
    words = [sys.executable, "-c", WITHOUT_TORCH, one.file.with_name("sample.py"), *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=100, check=False)


def test_the_sampler_is_a_program_that_needs_no_torch(exported, tmp_path):
    one = exported("image")
    noise, _ = one.noise_and_condition()
    np.save(tmp_path / "noise.npy", noise.numpy())
    done = run(one, "--noise", tmp_path / "noise.npy", "--classes", 0, 1, 2, "--guidance", 1.5,
               "--out", tmp_path / "drawn.npy")  # fmt: skip
    assert done.returncode == 0, done.stderr
    ours = one.drawn(one.ours, guidance=1.5).numpy()
    found = np.load(tmp_path / "drawn.npy")
    assert found.dtype == np.float32
    assert np.abs(found - ours).max() <= ROUNDING

    done = run(one, "--noise", tmp_path / "noise.npy", "--classes", 0, 1, 2, "--out", tmp_path / "own.npy")
    assert done.returncode == 0, done.stderr
    of_its_own = np.load(tmp_path / "own.npy")
    assert np.abs(of_its_own - one.drawn(one.ours).numpy()).max() <= ROUNDING
    for others in ({"guidance": 0.0}, {"guidance_interval": (0.0, math.inf)}):
        assert np.abs(of_its_own - one.drawn(one.ours, **others).numpy()).max() > ROUNDING


def test_guidance_that_would_guide_no_step_is_refused(exported, tmp_path):
    one = exported("image")
    for words, is_refused in ((["--guidance", 1.5], True), (["--guidance", 0], False), ([], False)):
        done = run(one, "--classes", 1, "--steps", 1, *words, "--out", tmp_path / "drawn.npy")
        assert ("guidance is for sigma 0.3 to 3, where none of 1 steps begins" in done.stderr) == is_refused
        assert ("not guided: the model's own guidance is at sigma 0.3 to 3;" in done.stderr) == (not words)
        assert done.returncode == 2 * is_refused, done.stderr


def test_its_command_line_takes_frames_captions_and_names(exported, tmp_path, monkeypatch):
    import PIL.Image

    clip, signal = exported("clip"), exported("signal")
    noise, condition = clip.noise_and_condition()
    np.save(tmp_path / "noise.npy", noise.numpy())
    np.save(tmp_path / "context.npy", condition.context.numpy())
    config = clip.config | {"class_names": list("abcde"), "values": {"low": 0.0, "high": 255.0, "dtype": "uint8"}}
    (tmp_path / "clip.json").write_text(json.dumps(config))
    (tmp_path / "clip.onnx").write_bytes(clip.file.read_bytes())
    words = ["sample.py", "--model", tmp_path / "clip.onnx", "--noise", tmp_path / "noise.npy", "--classes", "a", "1",
             "c", "--context", tmp_path / "context.npy"]  # fmt: skip
    for out in ("drawn.npy", "drawn.png"):
        monkeypatch.setattr(sys, "argv", [*map(str, words), "--out", str(tmp_path / out)])
        sample.main()
    ours = PICTURES.to_data(clip.drawn(clip.ours))
    found = np.load(tmp_path / "drawn.npy")
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - ours).max() <= 1
    with PIL.Image.open(tmp_path / "drawn.png") as picture:
        sheet = np.asarray(picture)
    assert sheet.shape == (3 * 8, 3 * 8, 3)  # a row of 3 frames for each of 3 clips
    assert np.array_equal(sheet[8:16, 16:24], np.moveaxis(found[1, :, 2], 0, -1))

    text = ["sample.py", "--model", signal.file, "--prompt", "é", "--num", 2, "--out", tmp_path / "text.npy"]
    monkeypatch.setattr(sys, "argv", [*map(str, text)])
    sample.main()
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 2, 1, 16), np.float32))
    condition = signal.kind.reading(["é"]).condition(torch.zeros(2, dtype=torch.int64))
    ours = signal.diffusion.sample(signal.ours, noise.shape, condition, noise=[noise])
    assert np.abs(np.load(tmp_path / "text.npy") - ours.numpy()).max() <= ROUNDING


@pytest.mark.parametrize(
    ("name", "words", "named"),
    [
        ("image", ["--classes", "cow"], "there is no class cow; there are: 0, 1, 2, 3, 4"),
        ("image", ["--classes", "5"], "there is no class 5"),
        ("set", ["--classes", "1"], "there is no class 1; there are: none"),
        ("image", ["--prompt", "red"], "3 bytes, and this model reads 0"),
        ("signal", ["--prompt", "many bytes"], "10 bytes, and this model reads 5"),
        ("clip", [], "what this model is given to go on from: [3, 3, 8, 8]"),
        ("image", ["--context", "clip.npy"], "what this model is given to go on from: nothing"),
        ("set", [], "draws no pictures: give --out samples.npy"),
    ],
)
def test_mistakes_at_the_sampler_are_said(exported, name, words, named, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sample.py", "--model", str(exported(name).file), *words])
    with pytest.raises(SystemExit, match="2"):
        sample.main()
    assert named in capsys.readouterr().err


def test_a_model_that_always_had_a_class_is_not_drawn_without(exported, tmp_path, monkeypatch, capsys):
    one = exported("image")
    (tmp_path / "model.json").write_text(json.dumps(one.config | {"label_drop_rate": 0.0}))
    for words in ([], ["--classes", "1", "--guidance", "1"]):
        monkeypatch.setattr(sys, "argv", ["sample.py", "--model", str(tmp_path / "model.onnx"), *words])
        with pytest.raises(SystemExit, match="2"):
            sample.main()
        assert "always given a class" in capsys.readouterr().err


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """A network and its program of torch.export, in a file; it was in double, in training, on a fast processor."""
    model = moved(small(**SHORT, latent_dim=64))
    for layer in model.modules():
        layer.has_faster = True  # as on processors where products go through oneDNN
    before = copy.deepcopy(model.train().double().state_dict())
    done = export(model, Diffusion(DIFFUSION), tmp_path_factory.mktemp("program") / "one.pt2", "torch")
    assert [file.name for file in done.files] == ["one.pt2", "one.json"]
    assert model.training
    assert all(weight.requires_grad and weight.dtype == torch.float64 for weight in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    return model.float().eval(), done.files[0]


def test_the_program_of_torch_export_is_the_same_pass_in_operators_of_pytorch(program):
    model, file = program
    loaded = torch.export.load(file)
    targets = {str(node.target) for node in loaded.graph.nodes if node.op == "call_function"}
    assert {target.partition(".")[0] for target in targets} <= {"aten", "<built-in function getitem>"}
    assert "bfloat16" not in str(loaded.graph)
    given = OnePass(model).inputs(70)  # beyond the products that oneDNN and bfloat16 begin at
    wanted = model(given["x"], given["gamma"], Condition(labels=given["labels"]), given["latents_prev"])
    for ours, theirs in zip(wanted, loaded.module()(**given), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)


def test_no_path_of_this_machine_gets_into_a_file(exported, program):
    for file in (exported("image").file, program[1]):
        assert b"rin.py" not in file.read_bytes()


def test_the_command_writes_and_says_how_well_it_answers(tmp_path, capsys):
    run = tmp_path / "run"
    trained(moved(small(**SHORT)), DIFFUSION, tuple("vwxyz")).save(run)
    command([str(run), "--to", "torch", "--out", str(tmp_path / "a folder")])
    said = capsys.readouterr().out
    assert said.startswith(f"'{tmp_path}/a folder/model.pt2', model.json: within ")
    assert json.loads((tmp_path / "a folder/model.json").read_text())["class_names"] == list("vwxyz")


@pytest.mark.parametrize(("sampler", "drawn_by"), [("ddpm", "ddim"), ("heun", "ddim"), ("dpmpp-2m", "dpmpp-2m")])
def test_a_rule_that_the_sampler_does_not_have_becomes_ddim(sampler, drawn_by):
    diffusion = Diffusion(replace(DIFFUSION, sampler=sampler))
    assert files._for_samplers(OnePass(moved(small())), diffusion, (), PICTURES)["sampler"] == drawn_by


MISTAKES = [
    ("x.pt2", "onnx", r"cannot export to onnx as .pt2 \(which is --to torch\): take .onnx, or a folder"),
    ("x.onnx", "torch", r"cannot export to torch as .onnx \(which is --to onnx\): take .pt2"),
    ("x.png", "onnx", r"cannot export to onnx as .png: take .onnx, or a folder"),
    ("file/x", "torch", "cannot write to"),
    ("changed", "onnx", "sample.py is there and not what would be written"),
]


@pytest.mark.parametrize(("path", "to", "named"), MISTAKES)
def test_a_place_that_does_not_fit_is_one_line(path, to, named, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "changed").mkdir()
    (tmp_path / "changed/sample.py").write_text("print(3)")
    with pytest.raises(RinError, match=named):
        export(moved(small()), Diffusion(DIFFUSION), tmp_path / path, to)
    assert not list(tmp_path.rglob("*.json"))


class Own(RIN):
    """Another network."""


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (lambda: torch.nn.Linear(3, 3), "this is another network"),
        (lambda: Own(small()), "this is another network"),
        (lambda: RIN(small(), tokenizer=Tokenizer()), "this is another network"),
        (lambda: moved(small(num_condition_tokens=3, condition_dim=6)), "reads embeddings cannot be exported"),
    ],
)
def test_a_network_that_cannot_be_exported_is_one_line(model, named, tmp_path):
    with pytest.raises(RinError, match=named):
        export(model(), Diffusion(DIFFUSION), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_package_that_is_missing_is_one_line(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(RinError, match=rf'{package} is needed .*pip install "rin-diffusion\[export\]"'):
        export(moved(small()), Diffusion(DIFFUSION), tmp_path)
    assert importlib.import_module("rin.interop.exporting")  # which needs none of them


@pytest.mark.parametrize("wrong", [1e-1, float("nan")])
def test_answers_that_are_not_pytorchs_are_one_line_and_leave_no_file(wrong, tmp_path, monkeypatch):
    def written(one_pass, path):
        path.touch()
        return lambda given: [part + wrong * (len(part) > 1) for part in one_pass(**given)]

    monkeypatch.setattr(files, "_write_torch", written)
    with pytest.raises(RinError, match="answers differ from PyTorch's by up to"):
        export(moved(small()), Diffusion(DIFFUSION), tmp_path, "torch")
    assert not list(tmp_path.iterdir())
