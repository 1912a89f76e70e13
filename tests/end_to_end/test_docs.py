"""Every command of the README and of docs, as it stands there, with toys in place of what it is given."""

import re
import runpy
import shlex
import shutil
import tomllib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from rin.cli.app import AppArguments
from rin.cli.arguments import parse
from rin.cli.info import InfoArguments
from rin.sampling.pictures import save_video
from tests.end_to_end.commands import ended, start, together
from tests.end_to_end.documentation import PAGES, ROOT, blocks, commands, commands_of_many, others
from tests.unit.text_encoders import make_encoder

TOY = {
    "model.latent_dim": 32, "model.interface_dim": 16, "model.num_latents": 8, "model.compute_depth": 1,
    "model.num_heads": 2, "model.num_read_write_heads": 2, "diffusion.num_steps": 2, "training.num_steps": 2,
    "training.batch_size": 8, "training.warmup_steps": 1, "training.held_out_every": 0, "training.sample_every": 0,
    "data.num_held_out": 8,
}  # fmt: skip
PATCHES = {
    "small-32": 8,
    "cifar10-small": 8,
    "imagenet-256": 64,
    "kinetics-600": 16,
    "moving-shapes": 16,
    "moving-shapes-64": 16,
    "points": 1,
    "digits": 1,
    "captions": 3,
}
EVERY_COMMAND, EVERY_ONE_OF_MANY, EVERY_OTHER = (
    list(dict.fromkeys(line for page in PAGES for line in found(page.read_text("utf-8"))))
    for found in (commands, commands_of_many, others)
)
REFUSED = {"rin sample runs/convolutions": "holds a network of its own"}
"""Commands that the pages say are refused, and how."""


class Mean(torch.nn.Module):
    """Of each channel, of pictures or clips."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.float().flatten(2).mean(dim=2) / 255


class Inception(Mean):
    """What is called as the network that StyleGAN's authors share."""

    def forward(self, x: torch.Tensor, return_features: bool = False, no_output_bias: bool = False) -> torch.Tensor:
        assert return_features or no_output_bias
        return x.float().flatten(2).mean(dim=2) / 255


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A folder with all that the pages name: pictures, videos, sets, a feature network, and runs."""
    folder = tmp_path_factory.mktemp("workspace")
    levels = torch.Generator().manual_seed(0)
    for name in ("images", "imagenet", "pictures", "bars"):
        for number in range(24):
            path = folder / "path/to" / name / "abcde"[number % 5] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(torch.randint(256, (32, 32, 3), generator=levels).byte().numpy()).save(path)
    (folder / "path/to/deep").mkdir()
    for number in range(24):
        Image.fromarray(np.full((32, 32), 2000 * number, np.uint16)).save(folder / f"path/to/deep/{number}.png")
    (folder / "path/to/cifar10-parquet").mkdir()
    encoded = [
        {"bytes": path.read_bytes(), "path": None} for path in sorted((folder / "path/to/images").rglob("*.png"))
    ]
    table = pa.table({"img": encoded, "label": [number % 10 for number in range(24)]})
    pq.write_table(table, folder / "path/to/cifar10-parquet/train.parquet")
    shutil.copy(folder / "path/to/cifar10-parquet/train.parquet", folder / "cifar10-test.parquet")
    frames = [torch.full((1, 3, 64, 64), 9 * frame % 256, dtype=torch.uint8) for frame in range(32)]
    for number in range(10):
        save_video(frames, folder / "path/to/videos" / f"{number}.mp4", 8.0)
    shutil.copy(folder / "path/to/videos/0.mp4", folder / "clip.mp4")
    for number in range(64):
        path = folder / "path/to/sequences" / f"clip_{number // 32}" / f"frame_{number % 32:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (3 * number, 0, 0)).save(path)
    Image.fromarray(torch.randint(256, (32, 32, 3), generator=levels).byte().numpy()).save(folder / "picture.png")
    Image.fromarray((np.indices((32, 32)).sum(axis=0) % 32 > 15).astype(np.uint8) * 255).save(folder / "mask.png")
    Image.new("L", (4, 4), 99).save(folder / "low.png")
    shutil.copy(folder / "picture.png", folder / "edges.png")
    for name in ("photos", "edges"):
        shutil.copytree(folder / "path/to/images", folder / "path/to" / name)
    hole = Image.open(folder / "picture.png").convert("RGBA")
    hole.putalpha(Image.open(folder / "mask.png"))
    hole.save(folder / "hole.png")
    torch.jit.script(Mean()).save(str(folder / "features.pt"))
    torch.jit.script(Inception()).save(str(folder / "inception-2015-12-05.pt"))
    for number in range(24):
        path = folder / "path/to/captioned" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (32, 32), (9 * number, 0, 0)).save(path)
        path.with_suffix(".txt").write_text(f"a {('red', 'green', 'blue')[number % 3]} square")
    make_encoder(folder / "path/to/encoder")
    pixels = torch.randint(256, (24, 32, 32, 3), generator=levels).byte().numpy()
    np.savez(folder / "path/to/arrays.npz", train_images=pixels, train_labels=np.arange(24)[:, None] % 10)
    np.savez(folder / "samples.npz", images=np.zeros((8, 32, 32, 3), dtype=np.uint8))
    for command in (
        "rin prepare path/to/imagenet sets/imagenet-256 --size 256",
        "rin prepare path/to/videos sets/clips --size 64 --frames 16",
        "rin train small-32 --data.path path/to/images --diffusion.label-drop-rate 0.1 "
        "--training.further-decays 0.9995 0.99 --out runs/mine",
        "rin train moving-shapes --out runs/shapes",
        "rin train moving-shapes --model.num-latents-min 4 --out runs/shapes-elastic",
        "rin train kinetics-600 --data.path path/to/videos --out runs/clips",
        "rin train small-32 --data.path path/to/arrays.npz --out runs/arrays",
        "rin train small-32 --data.path path/to/deep --data.bits 16 --model.shape 1 32 32 --model.num-classes 0 "
        "--out runs/deep",
        "rin train small-32 --data.path path/to/images --diffusion.label-drop-rate 0.1 --model.num-latents-min 8 "
        "--out runs/elastic",
        "rin sweep runs/elastic --features features.pt --num-latents 8 32",
        "rin train points --out runs/points",
        'rin train digits --data.degrade "downscale 2" --out runs/larger-digits',
        'rin train small-32 --data.path path/to/images --data.degrade "mask free-form" --model.num-classes 0 '
        "--out runs/filled",
        "rin train captions --out runs/captions",
        'rin train cifar10-small --data.path path/to/cifar10-parquet --data.degrade "downscale 4" '
        "--out runs/cifar10-larger",
        "rin train small-32 --data.path path/to/photos --data.condition path/to/edges --model.num-classes 0 "
        "--out runs/pairs",
        "rin prepare path/to/captioned sets/captioned --size 64 --captions txt --text-encoder path/to/encoder "
        "--num-tokens 32",
        "rin train small-32 --data.path sets/captioned --model.shape 3 64 64 --out runs/captioned",
        "rin evaluate samples.npz --features features.pt --reference path/to/images --keep-reference reference.npz",
    ):
        run(command, folder, as_it_is=True)
    for copy in ("averages", "imagenet", "bars", "options", "cifar", "try"):
        shutil.copytree(folder / "runs/mine", folder / "runs" / copy)
    for copy in ("runs/shapes-64", "demo-video/run"):
        shutil.copytree(folder / "runs/shapes", folder / copy)
    config = (
        (folder / "runs/mine/config.json").read_text().replace('"model": {', '"network": "mine.Own",\n "model": {', 1)
    )
    (folder / "runs/convolutions").mkdir()
    (folder / "runs/convolutions/config.json").write_text(config)
    return folder


def run(command, folder, as_it_is=False, processes=1):
    """Runs a command with toys, in forks, and holds it to have ended well; what it makes lies apart."""
    _, name, *words = shlex.split(command)
    made = folder if as_it_is else folder / "made" / str(len(list((folder / "made").glob("*"))))
    if name == "train" and not {"--help", "--dry-run"} & set(words):
        words[words.index("--out") + 1] = str(made / words[words.index("--out") + 1])
        if "--init-from" in words and not words[words.index("--init-from") + 1].startswith("runs/"):
            place = words.index("--init-from")
            del words[place : place + 2]  # a model that comes along is larger than toys
        toy = TOY | {"model.patch_size": PATCHES[words[0]]}
        if words[0] == "captions":
            toy |= {"model.num_latents": 52, "model.caption_length": 48}
        if "--model.num-latents-min" in words:
            del toy["model.num_latents"]  # the pages choose among those that the preset has
        if "sets/captioned" in words:
            toy |= {"model.num_latents": 48}
        if "shapes" in words[0]:
            toy |= {"data.moving_shapes.num_clips": 20}
        words += [word for key, value in toy.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    elif name == "prepare":
        words[1] = str(made / words[1])
    elif name == "info" and "--gpus" in words:  # to count takes seconds, and tests/unit/costs does it
        parse(InfoArguments, words, "rin info")
        return
    elif name == "app":  # which goes on until it is interrupted; test_app.py has pages
        parse(AppArguments, words, "rin app")
        return
    elif name == "push":  # which sends nothing here; test_push.py has a stand-in for the Hub
        words = words[: words.index("--to-folder")] if "--to-folder" in words else words
        words += ["--to-folder", str(made / "shared"), "--num", "2"]
    elif name == "export":
        words[words.index("--out") + 1] = str(made / words[words.index("--out") + 1])
    elif name in ("edit", "inpaint", "explain"):
        words += ["--num-steps", "2", "--out", str(made / words[words.index("--out") + 1])]
    elif name in ("sample", "evaluate", "sweep"):
        words = ["features.pt" if word == "inception-v3-compat" else word for word in words]
        few = (
            name == "sample"
            or {"clips", "pairs", "cifar10-larger"} & {*words[0].split("/")}
            or "--bits-per-dim" in words
        )
        words += ["--num", "2" if few else "8"]
        chooses_steps = "--budget" not in words and ("runs/" in words[0] or "run" in words[0].split("/"))
        words += ["--num-steps", "2"] if chooses_steps else []
        if name == "sample":
            words += ["--out", str(made / words[words.index("--out") + 1])] if "--out" in words else []
    made.mkdir(parents=True, exist_ok=True)
    if processes > 1:
        every_end = together(processes, name, *words, cwd=folder)
    else:
        every_end = [ended(start(name, *words, cwd=folder))]
    for end in every_end:
        if command in REFUSED:
            assert end.returncode == 2
            assert REFUSED[command] in end.stderr
        else:
            assert end.returncode == 0, f"{command}: {end.stderr}"


@pytest.mark.parametrize("command", EVERY_COMMAND)
def test_a_command_ends_well(workspace, command):
    run(command, workspace)


@pytest.mark.parametrize("command", EVERY_ONE_OF_MANY)
def test_a_command_of_several_processes_ends_well(workspace, command):
    run(command, workspace, processes=2)


@pytest.mark.parametrize(
    "command", ["rin train small-32 --data.pth path/to/images --out runs/x", "rin sampel runs/mine"]
)
def test_a_misspelt_command_does_not(workspace, command):
    with pytest.raises(AssertionError, match="did you mean"):
        run(command, workspace)


@pytest.mark.parametrize("line", EVERY_OTHER)
def test_another_line_names_what_is_there(line):
    words = shlex.split(line)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    elif words[0] == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        pinned = (ROOT / "constraints.txt").read_text()
        for extra in re.findall(r"[\w-]+", "".join(re.findall(r"\[(.*)\]", line))):
            for package in extras[extra] if "-c constraints.txt" in line else ():
                name = re.split("[<>=]", package)[0]
                assert f"\n{name}==" in pinned, f"{name} does not go with what stands there"
    elif words[1].endswith("/sample.py"):  # which tests/unit/interop/test_export.py runs
        source = (ROOT / "src/rin/interop/exporting/sample.py").read_text()
        assert all(f'"{word}"' in source for word in words if word.startswith("--"))
    elif words[0] == "python" and words[1] == "-m":
        path = ROOT / words[2].replace(".", "/")
        source = "".join(file.read_text() for file in (path.with_suffix(".py"), path / "__main__.py") if file.exists())
        assert source
        for word in words[3:]:
            assert not word.startswith("--") or f'"{word.partition("=")[0]}"' in source, word
    else:
        assert (ROOT / words[words[0] == "python"]).exists(), line


def test_there_is_no_other_python_than_what_is_run():
    """test_readme.py and test_extending.py run that of the others."""
    pages = {page.name for page in PAGES if blocks(page.read_text("utf-8"), "python")}
    assert pages == {"README.md", "evaluation.md", "extending.md"}


def test_a_network_of_styleganss_is_wrapped_as_it_is_said(workspace, monkeypatch):
    (block,) = blocks((ROOT / "docs/evaluation.md").read_text("utf-8"), "python")
    (workspace / "wrap.py").write_text(block.replace("features.pt", "wrapped.pt"))
    monkeypatch.chdir(workspace)
    runpy.run_path("wrap.py", run_name="__main__")
    network = torch.jit.load("wrapped.pt")
    pictures = torch.full((2, 3, 4, 4), 255, dtype=torch.uint8)
    assert torch.equal(network(pictures), torch.ones(2, 3))
    assert torch.equal(network.logits(pictures), torch.zeros(2, 3))
