"""Models that are shared: `rin push`, and the card. No test reaches the Hub: a stand-in for it keeps folders here, and
where it is to refuse, huggingface_hub itself speaks to a server of this machine."""

import http.server
import json
import re
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import rin
from rin import RinError
from rin.cli import main
from rin.model_files import weights_digest
from rin.sharing import hours_trained
from rin.sharing.measured import what_was_measured
from rin.training import checkpoint
from tests.end_to_end.commands import ROOT, TINY
from tests.end_to_end.commands import rin as command
from tests.end_to_end.hub import Refusing, StandInForTheHub, card, push
from tests.unit.models import moved, small


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Of a folder of pictures with two classes, held-out losses in its log, and a feature network beside it."""
    folder = tmp_path_factory.mktemp("machine")
    levels = torch.Generator().manual_seed(0)
    for number in range(40):
        path = folder / "pictures" / ("cats", "dogs")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(torch.randint(256, (8, 8, 3), generator=levels).byte().numpy()).save(path)
    torch.jit.script(Mean()).save(str(folder / "features.pt"))
    options = ("--model.shape", "3", "8", "8", "--training.num-steps", "6", "--training.held-out-every", "1")
    trained = command(
        "train", "small-32", *TINY, *options, "--training.batch-size", "10", "--data.num-held-out", "10",
        "--training.held-out-every", "1", "--data.path", folder / "pictures", "--out", folder / "run",
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    measured = command(
        "evaluate", folder / "run", "--num", "12", "--steps", "2", "--reference", folder / "pictures",
        f"--features={folder / 'features.pt'}", "--out", folder / "run" / "measures.json",
    )  # fmt: skip
    assert measured.returncode == 0, measured.stderr
    swept = command(
        "sweep", folder / "run", "--num", "12", "--steps", "1", "2", "--features", folder / "features.pt"
    )  # fmt: skip
    assert swept.returncode == 0, swept.stderr
    return folder / "run"


class Mean(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.float().flatten(2).mean(dim=2) / 255


@pytest.fixture
def hub(tmp_path, monkeypatch):
    here = type("Hub", (StandInForTheHub,), {"folder": tmp_path / "hub", "asked": [], "private": {}})
    monkeypatch.setattr(huggingface_hub, "HfApi", here)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", here.snapshot_download)
    monkeypatch.chdir(tmp_path)
    return here


def test_what_is_pushed_and_opened_by_its_name_draws_the_same_to_the_bit(run, hub, capsys):
    assert push(run, "someone/animals", "--num", "2") == 0
    assert capsys.readouterr().out == "hub/someone/animals: rin sample someone/animals\n"
    assert hub.asked == ["whoami", "create_repo", "upload_folder"]
    files = sorted(path.name for path in (hub.folder / "someone/animals").iterdir())
    assert files == ["README.md", "config.json", "model.safetensors", "samples.png"]
    again, before = rin.load("someone/animals"), rin.load(run)
    drawn = [trained.sample(["dogs", "cats"], seed=3, num_steps=3) for trained in (before, again)]
    assert torch.equal(*drawn)
    newest = checkpoint.all_checkpoints(run / checkpoint.FOLDER)[-1]
    last = checkpoint.read(newest, checkpoint.MODEL)
    average = load_file(hub.folder / "someone/animals/model.safetensors")
    assert any(not torch.equal(last[name], average[name]) for name in average), "the average is not the last weights"


def test_nothing_that_is_pushed_has_a_path_of_this_machine(run, hub):
    assert push(run, "someone/animals", "--num", "2") == 0
    machine = run.parent
    for path in (hub.folder / "someone/animals").iterdir():
        content = path.read_bytes()
        for name in (str(machine), machine.name, str(ROOT), "features.pt"):
            assert name.encode() not in content, (path.name, name)


def test_the_card_tells_what_was_trained(run, hub):
    assert push(run, "someone/animals", "--num", "2", "--license", "cc-by-4.0") == 0
    text = card(hub.folder / "someone/animals")
    for words in (
        "# animals\n",
        "Draws pictures of 8x8 pixels, by class: cats, dogs.",
        "A set of the author's own: 36 examples, and 4 held out.",
        "6 updates of 10 examples by muon",
        "seed 0",
        "`rin sample someone/animals --out samples.png`",
        '`rin.load("someone/animals")`',
        "Licence of the weights: cc-by-4.0.",
        "\n\n**Data.** ",
    ):
        assert words in text, words
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    rows = [f"| {line['step']} | {line['held_out_loss']:.4f} |" for line in log]
    assert len(rows) == 6
    assert "| updates | held-out loss |\n|---|---|\n" + "\n".join(rows) + "\n\n" in text
    head = huggingface_hub.ModelCard(text).data
    assert (head.library_name, head.license, head.pipeline_tag) == ("rin", "cc-by-4.0", None)
    assert head.datasets is None


@pytest.mark.usefixtures("hub")
def test_losses_of_updates_that_the_weights_have_not_are_left_out(run, tmp_path):
    shutil.copytree(run, tmp_path / "copy")
    with (tmp_path / "copy/log.jsonl").open("a") as log:
        log.write(json.dumps({"step": 7, "loss": 1.0, "lr": 0.1, "held_out_loss": 0.4321}) + "\n")
    rin.load(tmp_path / "copy").save_with_card("out", "a/b", num=0)
    assert "0.4321" not in card(Path("out"))
    assert "6 updates of 10" in card(Path("out"))


def test_the_samples_are_those_of_the_command_that_the_card_states(run, hub):
    assert push(run, "someone/animals", "--num", "4") == 0
    sent = hub.folder / "someone/animals"
    (stated,) = re.findall(r"^rin (sample .*)$", card(sent), flags=re.MULTILINE)
    assert stated == "sample someone/animals --num 4 --seed 0 --out samples.png"
    with pytest.raises(SystemExit, match="0"):
        main(stated.split())
    pictures = [np.array(Image.open(path)) for path in ("samples.png", sent / "samples.png")]
    assert (pictures[0] == pictures[1]).all()


@pytest.mark.usefixtures("hub")
def test_the_card_has_what_was_measured_of_these_weights_alone(run, tmp_path):
    shutil.copytree(run, tmp_path / "copy")
    measures = json.loads((run / "measures.json").read_text())
    (tmp_path / "copy/others.json").write_text((run / "measures.json").read_text().replace('"frechet', '"other'))
    other = json.loads((tmp_path / "copy/others.json").read_text())
    other["protocol"]["samples"]["weights_sha256"] = "0" * 64
    (tmp_path / "copy/others.json").write_text(json.dumps(other))
    (tmp_path / "copy/odd.json").write_text('{"command": "rin evaluate", "protocol": [1]}')
    trained = rin.load(tmp_path / "copy")
    trained.save_with_card("out", "a/b", num=0)
    text = card(Path("out"))
    assert f"| frechet distance | {measures['frechet_distance']:.4g} |" in text
    assert "other distance" not in text
    assert "`rin evaluate FOLDER --num 12 --steps 2 --reference FOLDER --features=FILE.pt`" in text
    assert f"SHA-256 {measures['protocol']['features']['sha256']}" in text
    ways = [json.loads(line) for line in (run / "sweep.jsonl").read_text().splitlines()]
    best = min(ways, key=lambda way: way["frechet_distance"])
    assert f"| {best['words']} | {best['way']['num_steps']} | {best['frechet_distance']:.4g} |" in text
    of_run = what_was_measured(run, weights_digest(rin.load(run).model), "a/b")
    assert "`rin evaluate a/b --num 12" in of_run
    assert what_was_measured(run, "0" * 64, "a/b") == ""


@pytest.mark.usefixtures("hub")
def test_a_set_on_the_hub_and_a_model_that_it_began_with_are_named_and_no_folders(run, tmp_path):
    for path, start, told in (
        ("someone/pictures", "digits", True),
        ("digits", "runs/mine", False),
        (str(tmp_path), str(tmp_path), False),
    ):
        shutil.rmtree("copy", ignore_errors=True)
        shutil.copytree(run, "copy")
        config = json.loads(Path("copy/config.json").read_text())
        config["data"]["path"], config["init_from"] = path, start
        Path("copy/config.json").write_text(json.dumps(config))
        Path("runs/mine").mkdir(parents=True, exist_ok=True)
        shutil.rmtree("out", ignore_errors=True)
        rin.load("copy").save_with_card("out", "a/b", num=0)
        text = card(Path("out"))
        assert huggingface_hub.ModelCard(text).data.datasets == (["someone/pictures"] if told else None)
        assert ("from the weights of `digits`" in text) == told
        assert ("from the weights of another model" in text) != told
        assert str(tmp_path) not in text
        assert "runs/mine" not in text


def test_a_folder_is_written_and_nothing_sent(run, hub, capsys):
    assert push(run, "someone/animals", "--to-folder", "out", "--num", "2") == 0
    assert hub.asked == []
    assert "nothing is sent" in capsys.readouterr().out
    assert torch.equal(rin.load("out").sample([0], seed=1, num_steps=2), rin.load(run).sample([0], seed=1, num_steps=2))
    assert push(run, "someone/animals", "--to-folder", "out") == 2
    assert "there is something in it already" in capsys.readouterr().err


@pytest.mark.usefixtures("hub")
def test_models_that_draw_by_more_than_themselves_have_no_picture_but_say_what_they_need():
    for changes, needed, task in (
        ({"num_classes": 0, "caption_length": 9}, "--prompt TEXT", "text-to-image"),
        ({"num_classes": 0, "condition_shape": (3, 4, 4)}, "--condition PICTURE.png", "image-to-image"),
        ({"shape": (3, 3, 8, 8), "patch_size": 4, "num_context_frames": 3}, "--context CLIP.mp4", None),
        ({"num_classes": 0}, "", "unconditional-image-generation"),
    ):
        config = small(**changes, num_latents=16)
        diffusion = rin.Diffusion(rin.DiffusionConfig(num_steps=2, label_drop_rate=0.1))
        shutil.rmtree("out", ignore_errors=True)
        made = rin.TrainedModel(moved(config), diffusion, config)
        made.save_with_card("out", "a/b", num=2)
        assert Path("out/samples.png").exists() == (not needed)
        assert f"rin sample a/b {needed}".strip() in card(Path("out"))
        assert "Not told by the folder" in card(Path("out"))
        assert huggingface_hub.ModelCard(card(Path("out"))).data.pipeline_tag == task
    shutil.rmtree("out")
    config = small(num_classes=0, caption_length=9, num_latents=16)
    rin.TrainedModel(moved(config), diffusion, config).save_with_card("out", "a/b", prompt="a 'cat'", num=2)
    (stated,) = re.findall(r"^rin sample .*$", card(Path("out")), flags=re.MULTILINE)
    assert "--prompt 'a '\"'\"'cat'\"'\"'' --num 2" in stated


# What is refused


@pytest.mark.parametrize(
    "name",
    ["animals", "a/b/c", "/a", "a/", "./a", "../a", "a b/c", "a--b/c", "a/b.git", "https://a/b", "a/" + 99 * "b"],
)
def test_what_is_no_name_is_refused_before_anything(run, hub, name, capsys):
    assert push(run, name) == 2
    assert "is no name on the Hub: give owner/name" in capsys.readouterr().err
    with pytest.raises(RinError, match="is no name on the Hub"):
        rin.load(run).push_to_hub(name)
    assert hub.asked == []


@pytest.mark.parametrize(
    ("options", "said"), [(("--num", "-1"), "num"), (("--prompt", "a cat"), "a prompt is for models")]
)
def test_samples_that_it_cannot_draw_are_refused_before_anything(run, hub, options, said, capsys):
    assert push(run, "a/b", *options) == 2
    assert said in capsys.readouterr().err
    assert hub.asked == []


def test_a_text_encoder_that_others_do_not_have_is_refused(hub, tmp_path):
    (tmp_path / "encoder").mkdir()
    config = replace(
        small(num_classes=0, num_condition_tokens=3, condition_dim=6), text_encoder=str(tmp_path / "encoder")
    )
    made = rin.TrainedModel(moved(config), rin.Diffusion(rin.DiffusionConfig()), config)
    with pytest.raises(RinError, match="a folder of this machine that others do not have"):
        made.push_to_hub("a/b")
    assert hub.asked == []


def test_what_is_to_be_private_is_not_sent_where_all_can_see_it(run, hub, capsys):
    assert push(run, "a/b", "--num", "0") == 0
    hub.asked.clear()
    assert push(run, "a/b", "--private", "--num", "0") == 2
    assert "on the Hub already and public" in capsys.readouterr().err
    assert "upload_folder" not in hub.asked
    assert push(run, "a/c", "--private", "--num", "0") == 0
    assert hub.private == {"a/b": False, "a/c": True}


def test_a_hub_that_refuses_or_is_not_there_is_one_line(run, monkeypatch, capsys):
    server = http.server.HTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    try:
        assert push(run, "a/b") == 2
    finally:
        server.shutdown()
        server.server_close()
    refused = capsys.readouterr().err.strip().splitlines()
    assert push(run, "a/b") == 2
    unreachable = capsys.readouterr().err.strip().splitlines()
    for lines in (refused, unreachable):
        assert len(lines) == 1, lines
        assert lines[0].startswith("rin: cannot push to a/b on the Hub")
    assert "hf auth login" in refused[0]
    assert "refused" in unreachable[0]


def test_hours_are_those_of_the_events_wherever_they_were_copied_to(run, tmp_path):
    assert 0 < hours_trained(run) < 1
    shutil.copytree(run, tmp_path / "copy", copy_function=shutil.copyfile)  # new times of the files
    assert hours_trained(tmp_path / "copy") == hours_trained(run)
    assert hours_trained(tmp_path) == 0
