"""A folder for diffusers: the library opens it, its pipeline draws what we draw, and mistakes are one line."""

import json
import shutil
import sys
import types
import warnings
from dataclasses import replace
from fnmatch import fnmatch

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import rin
from rin import RIN, DiffusionConfig, RinError
from rin.cli.export import export as command
from rin.interop.diffusers import save
from rin.nn.tokenizers import Tokenizer
from tests.unit.models import VIDEO, moved, small, trained

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of other libraries' imports
    import diffusers
    import diffusers.pipelines.pipeline_utils as opening
    from diffusers.utils import dynamic_modules_utils as dynamic

STEPS = 6
DIFFUSION = DiffusionConfig(label_drop_rate=0.1, num_steps=STEPS, sampler="ddim")
NAMES = ("ant", "bee", "cow", "dog", "eel")
MODELS = {
    "classes": (small(mixing_size=3), replace(DIFFUSION, guidance=2.0, guidance_interval=(0.3, 3.0)), NAMES),
    "none": (
        small(shape=(1, 8, 12), num_classes=0),
        DiffusionConfig(num_steps=STEPS, prediction="v", input_scale=0.7, normalise_input=True),
        (),
    ),
    "captions": (
        small(num_classes=0, caption_length=8, num_latents=14),
        replace(DIFFUSION, sampler="dpmpp-2m", sampling_schedule="karras"),
        (),
    ),
    "picture": (small(num_classes=0, condition_shape=(3, 4, 4)), replace(DIFFUSION, sampler="heun"), ()),
}
"""Of each sort that is saved, with every kind of sampler; that of "none" is ddpm, which draws noise at each step."""
PICTURES = torch.linspace(-1, 1, 2 * 3 * 4 * 4).reshape(2, 3, 4, 4)


def drawn(ours, **options):
    """In float32, as the pipeline draws; by itself ours takes bfloat16 where that is faster."""
    return ours.sample(precision="float32", **options)


ASKED = {
    "classes": ({"class_labels": ["dog", 1, 3], "guidance_scale": 2.5}, {"labels": [3, 1, 3], "guidance": 1.5}),
    "none": ({"batch_size": 3}, {"num": 3}),
    "captions": (
        {"prompt": ["red", "blue", "red"], "guidance_scale": 3.0},
        {"labels": ["red", "blue", "red"], "guidance": 2.0},
    ),
    "picture": ({"image": PICTURES}, {"condition": PICTURES}),
}
"""How the pipeline is asked for what `TrainedModel.sample` draws."""


@pytest.fixture(scope="module", autouse=True)
def code(tmp_path_factory):
    """Where diffusers copies the code that it runs to: by itself a folder of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamic, "HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
        patch.setattr(sys, "path", [*sys.path])
        yield


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Each of `MODELS`, saved once: (ours, folder)."""
    folder, done = tmp_path_factory.mktemp("saved"), {}

    def get(name):
        if name not in done:
            config, diffusion, names = MODELS[name]
            done[name] = trained(moved(config), diffusion, names), folder / name
            save(*done[name])
        return done[name]

    return get


def opened(folder, **options):
    pipe = diffusers.DiffusionPipeline.from_pretrained(str(folder), trust_remote_code=True, **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("name", MODELS)
def test_the_pictures_are_ours_by_seed_and_stay_so_when_saved_again(saved, name, tmp_path):
    ours, folder = saved(name)
    theirs, options = ASKED[name]
    wanted = drawn(ours, seed=7, **options)
    assert wanted.std() > 0.1
    pipe = opened(folder)
    assert torch.equal(pipe(**theirs, seed=7, output_type="pt").images, (wanted / 2 + 0.5).clamp(0, 1))
    assert pipe(**theirs, seed=7).images == rin.to_pil(wanted)
    assert pipe(**theirs, seed=8).images != rin.to_pil(wanted)

    pipe.save_pretrained(tmp_path / "again")
    again = opened(tmp_path / "again", custom_pipeline=str(tmp_path / "again"))
    assert again(**theirs, seed=7).images == rin.to_pil(wanted)
    fewer = drawn(ours, seed=7, num_steps=3, **options)
    assert again(**theirs, seed=7, num_inference_steps=3).images == rin.to_pil(fewer) != rin.to_pil(wanted)


def test_without_a_guidance_scale_it_is_guided_as_the_model_has_it(saved):
    ours, folder = saved("classes")
    pipe = opened(folder)
    own, without = (rin.to_pil(drawn(ours, labels=[3, 1], seed=7, **options)) for options in ({}, {"guidance": 0.0}))
    assert pipe(class_labels=[3, 1], seed=7).images == own != without
    assert pipe(class_labels=[3, 1], seed=7, guidance_scale=1.0).images == without
    assert pipe(batch_size=2, seed=7).images == rin.to_pil(drawn(ours, num=2, seed=7))  # of no class


def test_the_folder_is_laid_out_as_diffusers_has_it(saved):
    _, folder = saved("classes")
    code = "rin.interop.diffusers.components"
    assert sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()) == sorted(
        [
            "model_index.json", "pipeline.py", f"denoiser/{code}.py", "denoiser/config.json",
            "denoiser/diffusion_pytorch_model.safetensors", f"scheduler/{code}.py", "scheduler/scheduler_config.json",
        ]
    )  # fmt: skip
    index = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"] == ["pipeline", "RINPipeline"]
    assert index["denoiser"] == [code, "RINDenoiser"]
    assert index["scheduler"] == [code, "RINScheduler"]
    assert index["id2label"] == {str(number): name for number, name in enumerate(NAMES)}
    assert json.loads((folder / "denoiser/config.json").read_text())["num_latents"] == 8
    modes = {file.stat().st_mode for file in folder.rglob("*") if file.is_file()}
    assert len(modes) == 1
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        diffusers.DiffusionPipeline.from_pretrained(str(folder))


def test_the_hub_is_asked_for_all_that_is_needed(saved, tmp_path, monkeypatch):
    ours, folder = saved("classes")
    files = [str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()]
    info = types.SimpleNamespace(siblings=[types.SimpleNamespace(rfilename=file) for file in files], sha="abc")

    def copied(_name, file, **_):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        return shutil.copy(folder / file, tmp_path / file)

    def snapshot(name, allow_patterns, **_):
        for file in files:
            if any(fnmatch(file, pattern) for pattern in allow_patterns):
                copied(name, file)
        return str(tmp_path)

    monkeypatch.setattr(opening, "snapshot_download", snapshot)
    for module in (opening, dynamic):
        monkeypatch.setattr(module, "model_info", lambda *_, **__: info)
        monkeypatch.setattr(module, "hf_hub_download", copied)
    pipe = opened("owner/name")
    assert sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()) == sorted(files)
    assert pipe(class_labels=2, seed=1).images == rin.to_pil(drawn(ours, labels=2, seed=1))


def test_generators_and_forms_are_as_diffusers_has_them(saved):
    ours, folder = saved("classes")
    pipe = opened(folder)

    def of(generator, labels=(0, 1), **options):
        return pipe(class_labels=list(labels), generator=generator, output_type="np", **options).images

    generator = torch.Generator().manual_seed(3)
    first, second = of(generator), of(generator)
    assert first.shape == (2, 8, 8, 3)
    assert first.dtype == np.float32
    assert 0 <= first.min() < first.max() <= 1
    assert np.array_equal(first, of(torch.Generator().manual_seed(3)))
    assert np.abs(first - second).max() > 0.1  # it has gone on
    several = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    assert np.allclose(of(several)[1], of(torch.Generator().manual_seed(4), [1])[0], atol=1e-5)
    torch.manual_seed(3)
    assert np.array_equal(first, of(None))
    (pictures,) = pipe(class_labels="bee", batch_size=2, seed=0, return_dict=False)
    assert pictures == rin.to_pil(drawn(ours, labels=1, num=2, seed=0))
    assert pipe(seed=2).images == rin.to_pil(drawn(ours, seed=2))  # of no class


def test_each_step_is_called_back_with_the_clean_estimates(saved):
    ours, folder = saved("classes")
    calls, steps = [], []
    pipe = opened(folder)
    pipe(class_labels=[1], seed=0, callback_on_step_end=lambda *call: calls.append(call))
    drawn(ours, labels=[1], seed=0, callback=lambda _, x_0: steps.append(x_0.clone()))
    assert [call[1] for call in calls] == list(range(STEPS))
    assert [call[2] for call in calls] == pytest.approx([1 - step / STEPS for step in range(STEPS)])
    assert all(call[0] is pipe for call in calls)
    assert all(torch.equal(call[3]["pred_original_sample"], x_0) for call, x_0 in zip(calls, steps, strict=True))


def test_another_sampler_is_another_scheduler(saved):
    ours, folder = saved("classes")
    pipe = opened(folder)
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, sampler="dpmpp-2m")
    theirs = pipe(class_labels=[1], seed=0).images
    assert theirs == rin.to_pil(drawn(ours, labels=[1], seed=0, sampler="dpmpp-2m"))
    assert theirs != rin.to_pil(drawn(ours, labels=[1], seed=0))
    with pytest.raises(RinError, match="unknown option of RINScheduler 'samplr': did you mean 'sampler'"):
        type(pipe.scheduler).from_config(pipe.scheduler.config, samplr="ddim")
    pipe.scheduler = diffusers.DDIMScheduler()
    with pytest.raises(RinError, match="DDIMScheduler cannot carry the latents of a RIN: take a RINScheduler"):
        pipe(class_labels=[1])


def test_weights_of_half_the_precision_draw_nearly_the_same(saved):
    ours, folder = saved("none")
    wanted = drawn(ours, seed=0, num_steps=2, sampler="ddim")
    pipe = opened(folder, dtype=torch.float16)
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, sampler="ddim")
    found = pipe(seed=0, num_inference_steps=2, output_type="pt").images * 2 - 1
    assert pipe.dtype == torch.float16
    assert found.dtype == torch.float32
    assert 0 < (found - wanted).abs().max() < 0.05


MISTAKES = [
    ("classes", {"class_labels": [5]}, r"class 5 is out of range: this model has classes 0 to 4"),
    ("classes", {"class_labels": ["cat"]}, r"unknown class 'cat': did you mean 'ant'"),
    ("classes", {"class_labels": [1], "guidance_scale": 0.5}, r"guidance_scale 0.5: take a number from 1"),
    ("classes", {"class_labels": [1], "guidance_scale": float("nan")}, r"guidance_scale nan: take a number from 1"),
    ("classes", {"class_labels": [1], "guidance_scale": "2"}, r"guidance_scale '2': take a number from 1"),
    ("classes", {"guidance_scale": 2}, r"guidance_scale 2 does nothing without a class or a prompt"),
    ("classes", {"prompt": "red"}, r"this model reads no captions: give class_labels"),
    ("classes", {"class_labels": [1, 2], "batch_size": 3}, r"\(3 by batch_size, 2 by class_labels\)"),
    ("classes", {"batch_size": 0}, r"batch_size 0: take a whole number from 1 on"),
    ("classes", {"class_labels": [1], "seed": -1}, r"seed -1: take a whole number from 0 on"),
    ("classes", {"seed": 1, "generator": torch.Generator()}, r"seed and generator are two ways to say the same"),
    ("classes", {"generator": [torch.Generator()], "class_labels": [1, 2]}, r"2 by class_labels, 1 by generator"),
    ("classes", {"class_labels": [1], "num_inference_steps": 0}, r"num_inference_steps 0: take a whole number from 1"),
    (
        "classes",
        {"class_labels": [1], "output_type": "latent"},
        r"unknown output_type 'latent': there are: np, pil, pt",
    ),
    ("classes", {"class_labels": [1], "image": PICTURES}, r"this model draws from no picture"),
    ("none", {"class_labels": [1]}, r"this model was trained without classes"),
    (
        "none",
        {"guidance_scale": 2.0},
        r"guidance needs a model trained with label dropping .* leave guidance_scale at 1",
    ),
    ("captions", {"class_labels": [1]}, r"this model draws by captions: give prompt"),
    ("captions", {"prompt": "far too long"}, r"has 12 bytes, and the model reads 8"),
    ("picture", {}, r"this model draws from a picture of 4x4 pixels"),
]


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize(("name", "call", "named"), MISTAKES)
def test_a_wrong_call_is_one_line(saved, name, call, named):
    pipe = opened(saved(name)[1])
    with pytest.raises(RinError, match=named) as error:
        pipe(**call)
    assert "\n" not in str(error.value)


def test_a_model_that_always_had_a_class_is_not_drawn_without(tmp_path):
    save(trained(moved(small()), replace(DIFFUSION, label_drop_rate=0.0)), tmp_path / "x")
    with pytest.raises(RinError, match="never gone without its class"):
        opened(tmp_path / "x")()


@pytest.mark.parametrize(
    ("file", "change", "named"),
    [
        ("denoiser/config.json", {"num_latnts": 3}, "unknown option of RINDenoiser 'num_latnts'"),
        ("scheduler/scheduler_config.json", {"new": 1}, "unknown option of RINScheduler 'new'"),
        ("scheduler/scheduler_config.json", {"sampler": "euler"}, "sampler"),
    ],
)
def test_an_option_that_is_not_known_is_not_left_out(saved, file, change, named, tmp_path):
    shutil.copytree(saved("classes")[1], tmp_path / "x")
    content = json.loads((tmp_path / "x" / file).read_text())
    (tmp_path / "x" / file).write_text(json.dumps(content | change))
    with pytest.raises(RinError, match=named):
        opened(tmp_path / "x")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda weights: weights.pop("network.latents"), "network.latents is missing"),
        (lambda weights: weights.update(more=torch.zeros(2)), "more is no weight of it"),
    ],
)
def test_weights_that_are_not_the_networks_are_refused(saved, change, named, tmp_path):
    shutil.copytree(saved("classes")[1], tmp_path / "x")
    file = tmp_path / "x/denoiser/diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(RinError, match=named):
        opened(tmp_path / "x")


def test_a_folder_of_before_has_the_condition_as_tokens_and_leaves_out_what_is_no_more(tmp_path):
    ours = trained(moved(small(num_classes=0, condition_shape=(3, 4, 4), condition_in_place=False)), DIFFUSION)
    save(ours, tmp_path / "x")
    file = tmp_path / "x/denoiser/config.json"
    config = json.loads(file.read_text())
    assert config.pop("condition_in_place") is False
    file.write_text(json.dumps(config))
    scheduler = tmp_path / "x/scheduler/scheduler_config.json"
    scheduler.write_text(json.dumps(json.loads(scheduler.read_text()) | {"self_cond_lag": 0.1}))
    got = opened(tmp_path / "x")(image=PICTURES, seed=7).images
    assert got == rin.to_pil(drawn(ours, condition=PICTURES, seed=7))


class Own(RIN):
    """Another network."""


UNSAVED = [
    (lambda: Own(small()), "only a RIN with a tokenizer of rin's can be saved for diffusers"),
    (lambda: RIN(small(), tokenizer=Tokenizer()), "and this one is rin.nn.rin.RIN with"),
    (lambda: moved(small(**VIDEO)), "only models of pictures can be saved for diffusers, and this one draws clips"),
    (lambda: moved(small(shape=(9, 7))), "and this one draws sets"),
    (lambda: moved(small(shape=(2, 1, 16))), "and this one draws signals"),
    (lambda: moved(small(num_condition_tokens=3, condition_dim=6)), "a model that reads embeddings cannot be saved"),
]


@pytest.mark.parametrize(("model", "named"), UNSAVED)
def test_a_model_that_cannot_be_saved_is_one_line(model, named, tmp_path):
    with pytest.raises(RinError, match=named):
        save(trained(model()), tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_does_not_fit_is_one_line_and_stays(tmp_path, monkeypatch):
    model = trained(moved(small()))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    with pytest.raises(RinError, match="there is something in it already, give a new folder"):
        save(model, tmp_path / "full")
    assert [file.name for file in (tmp_path / "full").iterdir()] == ["notes.txt"]
    with pytest.raises(RinError, match="cannot write to"):
        save(model, tmp_path / "full/notes.txt")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rin.interop.diffusers.pipeline.RINPipeline.save_pretrained", full)
    with pytest.raises(RinError, match="No space left on device"):
        save(model, tmp_path / "new")
    assert not list((tmp_path / "new").iterdir())


def test_a_missing_package_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(RinError, match=r'diffusers is needed .*pip install "rin-diffusion\[diffusers\]"'):
        save(trained(moved(small())), tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_a_folder_without_rin_says_what_to_install(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "rin.interop.diffusers.pipeline", None)
    with pytest.raises(ImportError, match=r'this model needs rin: pip install "rin-diffusion\[diffusers\]"'):
        opened(saved("classes")[1])


def test_the_command_writes_the_folder(tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "a folder"
    trained(moved(small()), DIFFUSION, NAMES).save(run)
    command([str(run), "--to", "diffusers", "--out", str(out)])
    assert capsys.readouterr().out.startswith(f"'{out}': DiffusionPipeline.from_pretrained opens it")
    ours = rin.load(run, device="cpu")
    assert opened(out)("dog", seed=3).images == rin.to_pil(drawn(ours, labels="dog", seed=3))
