"""What lies behind the page: its controls and what they call, without a browser or a server."""

import asyncio
import sys
import types
from pathlib import Path

import pytest
import torch
from PIL import Image

from rin import RinError
from rin.app.controls import SAMPLERS, choices
from rin.app.page import page
from rin.app.run_figures import losses, preview
from rin.app.sample_tab import Stops
from rin.app.serving import is_this_machine
from rin.core.optional import gradio
from rin.diffusion import samplers
from tests.unit.app.opened import TOYS, opened


@pytest.fixture(autouse=True)
def _files_of_pages(tmp_path, monkeypatch):
    """They lie where the test's do."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))


def made(model):
    """Its page; within an event loop, without which gradio leaves loops of its own open."""

    async def make():
        return page(model)

    return asyncio.run(make())


def event(blocks, name):
    """What an event of the page calls."""
    (found,) = (each.fn for each in blocks.fns.values() if each.api_name == name)
    return found


def values(model, **others):
    """Of the controls, in their order."""
    given = {
        "prompt": "", "condition": None, "seed": 0, "sampler": "ddim", "steps": 4, "guidance": 0,
        "latents": model.config.num_latents, "average": None,
    }  # fmt: skip
    return list((given | others).values())


@pytest.mark.parametrize("kind", TOYS)
def test_models_of_every_kind_have_a_page(kind, tmp_path):
    model = opened(tmp_path, kind)
    own = {
        "captions": {"prompt": "a red disc"},
        "from a picture": {"condition": Image.new("RGB", (4, 4), (9, 200, 30))},
    }.get(kind, {})
    blocks = made(model)
    who = gradio("for a test").Request(session_hash="one")
    *way, (shown, told, written) = event(blocks, "draw")(who, [], 2, *values(model, **own))
    assert told == f"2 {model.kind.noun}, 4 steps"
    assert written[0].endswith({"clips": "clips.gif", "sets of many numbers": "samples.npz"}.get(kind, "samples.png"))
    if kind == "sets of many numbers":
        assert isinstance(shown, dict)
    else:
        assert shown.endswith("clips.gif" if kind == "clips" else "image.png")
    assert way
    if kind in ("signals", "sets of many numbers"):
        assert not any(each.api_name == "routing" for each in blocks.fns.values())
    else:
        of = 0 if model.kind.num_classes else None
        moments, _, told, last, _ = event(blocks, "routing")(of, 3, *values(model, **own))
        assert len(moments) == 4
        assert told.startswith("a step that begins at t = 0.25")
        assert Image.open(event(blocks, "moment")(1, moments)[1]).tobytes() != Image.open(last).tobytes()


def test_the_file_of_a_picture_is_never_written_again(tmp_path):
    """A browser may be reading it: another window shows the same picture."""
    model, who = opened(tmp_path), gradio("for a test").Request(session_hash="one")
    draw = event(made(model), "draw")
    *_, (shown, _, _) = draw(who, [], 1, *values(model))
    assert Path(shown).is_relative_to(tmp_path / "gradio")  # a file elsewhere, gradio would copy
    Path(shown).write_bytes(b"as it was")
    *_, (again, _, _) = draw(who, [], 1, *values(model))
    assert again == shown
    assert Path(shown).read_bytes() == b"as it was"


def test_no_event_gives_gradio_a_picture_to_write(tmp_path, monkeypatch):
    monkeypatch.setattr("rin.app.run_tab.preview", lambda *_: ("step 1", Image.new("RGB", (4, 4))))
    model, who = opened(tmp_path), gradio("for a test").Request(session_hash="one")
    blocks = made(model)
    routing = event(blocks, "routing")(0, 3, *values(model))
    told = [
        *event(blocks, "draw")(who, [], 1, *values(model)),
        routing, event(blocks, "moment")(1, routing[0]), event(blocks, "run")(), event(blocks, "samples")(0),
    ]  # fmt: skip
    shown = [getattr(each, "value", each) for outputs in told for each in outputs]
    assert len([each for each in shown if str(each).endswith("image.png")]) >= 8
    assert not any(isinstance(each, Image.Image) for each in shown)


def test_a_model_is_asked_for_nothing_that_it_does_not_take(tmp_path):
    labelled = ("Prompt", "Picture to draw from", "Guidance", "Latents", "Average of the weights, by its decay")
    for kind, visible in (("sets", ()), ("pictures", ("Guidance", "Latents")), ("captions", ("Prompt", "Guidance"))):
        blocks = made(opened(tmp_path / kind, kind))
        there = {block.label: block.visible for block in blocks.blocks.values() if getattr(block, "label", None)}
        assert {name for name in labelled if there[name]} == set(visible)
        assert {block.value for block in blocks.blocks.values() if getattr(block, "label", None) == "Guidance"} == {
            float("Guidance" in visible)  # 0 where it cannot be turned down
        }
        assert there["Steps"]
        assert there["Seed"]


def test_the_page_begins_with_the_models_own_guidance(tmp_path):
    model = opened(tmp_path, guidance=2.5, guidance_interval=(0.5, 3.0))
    blocks = [block for block in made(model).blocks.values() if "Guidance" in str(getattr(block, "label", None))]
    assert {(block.label, block.value) for block in blocks} == {("Guidance, at sigma 0.5 to 3", 2.5)}
    asked = [choices(model, [1], 2, *values(model, guidance=strength)) for strength in (2.5, 0.0)]
    own, none = (model.trained().sample([1, 1], **choice.options) for choice in asked)
    assert torch.equal(own, model.trained().sample([1, 1], sampler="ddim"))
    assert torch.equal(none, model.trained().sample([1, 1], sampler="ddim", guidance=0.0))
    assert not torch.equal(own, none)


@pytest.mark.parametrize(
    ("kind", "own", "expected"),
    [("pictures", 12.0, (12.0, 12.0)), ("pictures", 0.0, (1.0, 10.0)), ("sets", 2.0, (0.0, 10.0))],
)
def test_the_strength_to_begin_with_is_one_that_can_be_drawn_with(kind, own, expected, tmp_path):
    blocks = made(opened(tmp_path, kind, guidance=own)).blocks.values()
    sliders = [block for block in blocks if getattr(block, "label", None) == "Guidance"]
    assert {(slider.value, slider.maximum) for slider in sliders} == {expected}


def test_without_a_prompt_there_is_nothing_to_guide_by(tmp_path):
    model, who = opened(tmp_path, "captions"), gradio("for a test").Request(session_hash="one")
    draw = event(made(model), "draw")

    def pixels(**given):
        *_, (shown, _, _) = draw(who, [], 2, *values(model, **given))
        return Image.open(shown).tobytes()

    assert pixels(guidance=3.0, prompt=" ") == pixels(guidance=0.0, prompt="")
    assert pixels(guidance=3.0, prompt="a disc") != pixels(guidance=0.0, prompt="a disc")


def test_steps_that_are_left_out_are_the_models_own(tmp_path):
    model, who = opened(tmp_path), gradio("for a test").Request(session_hash="one")
    *_, (_, told, _) = event(made(model), "draw")(who, [], 1, *values(model, steps=None))
    assert told == "1 picture, 4 steps"


def test_every_sampler_is_there_and_the_heading_tells_what_the_model_is(tmp_path):
    assert tuple(SAMPLERS) == samplers.SAMPLERS
    model = opened(tmp_path)
    model.source = "<b>x</b>"
    heading = next(block.value for block in made(model).blocks.values() if block.elem_classes == ["heading"])
    assert heading.startswith("<h1>&lt;b&gt;x&lt;/b&gt;</h1><p>Draws pictures of 3 x 8 x 8, of 5 classes; ")
    count = sum(weight.numel() for weight in model.trained().model.parameters())
    assert heading.endswith(f"; {count:,} parameters; computes on the CPU.</p>")


def test_a_mistake_is_a_message_without_a_traceback(tmp_path):
    model = opened(tmp_path)
    draw, who = event(made(model), "draw"), gradio("for a test").Request(session_hash="one")
    with pytest.raises(gradio("for a test").Error) as told:
        list(draw(who, [], 2, *values(model, seed=-1)))
    assert "seed -1" in told.value.message
    assert not told.value.print_exception


def test_messages_are_text_and_no_html(tmp_path):
    model = opened(tmp_path)
    model.source = "<b>x</b>"
    model.averages = (0.5, 0.9)
    draw, who = event(made(model), "draw"), gradio("for a test").Request(session_hash="one")
    with pytest.raises(gradio("for a test").Error, match=r"&lt;b&gt;x&lt;/b&gt; has no average of decay 0\.1"):
        list(draw(who, [], 2, *values(model, average=0.1)))


def test_a_session_stops_its_own():
    stops = Stops()
    stops.begin("one")
    stops.begin("other")
    stops.stop("one")
    assert stops.of("one").is_set()
    assert not stops.of("other").is_set()
    stops.begin("one")
    assert not stops.of("one").is_set()
    gone = stops.of("other")
    stops.forget("other")
    assert gone.is_set()
    stops.stop("nobody")


def test_a_log_is_thinned_and_what_is_no_number_is_passed_over(tmp_path):
    lines = [f'{{"step": {step}, "loss": {step / 2}}}\n' for step in range(1, 2501)]
    lines[9] = '{"step": 10, "loss": NaN}\n'
    lines[10] = '{"step": 11, "loss": null, "held_out_loss": 0.25}\n'
    (tmp_path / "log.jsonl").write_text("".join(lines) + '{"step": 2501, "lo')
    columns = losses(tmp_path)
    points = list(zip(*columns.values(), strict=True))
    training = [point for point in points if point[2] == "training"]
    assert training[-1] == (2500, 1250.0, "training")
    assert 800 <= len(training) <= 1000
    assert [step for step, _, _ in training] == sorted(step for step, _, _ in training)
    assert [point for point in points if point[2] == "held-out"] == [(11, 0.25, "held-out")]
    assert losses(tmp_path / "nowhere") == {"step": [], "loss": [], "of": []}


def test_samples_on_the_way_are_in_order_and_a_broken_one_is_told(tmp_path):
    assert preview(tmp_path, 0) == ("no samples", None)
    (tmp_path / "samples").mkdir()
    for step, level in ((1000, 10), (200, 90)):
        Image.new("L", (2, 2), level).save(tmp_path / f"samples/step-{step:09d}.png")
    (tmp_path / "samples/step-x.png").write_text("another's")
    told, picture = preview(tmp_path, 1)
    assert (told, picture.getpixel((0, 0))) == ("step 1,000", 10)
    assert preview(tmp_path, 0)[0] == "step 200"
    assert preview(tmp_path, 99)[0] == "step 1,000"
    (tmp_path / "samples/step-000001000.png").write_text("no picture")
    with pytest.raises(RinError, match="step-000001000"):
        preview(tmp_path, 1)


def test_without_gradio_it_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(RinError, match=r'gradio is needed for rin app: pip install "rin-diffusion\[app\]"'):
        gradio("for rin app")
    monkeypatch.setitem(sys.modules, "gradio", types.ModuleType("gradio"))  # as a folder of that name is imported
    with pytest.raises(RinError, match="gradio is needed for rin app"):
        gradio("for rin app")


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True), ("127.0.0.9", True), ("localhost", True), ("::1", True), ("0.0.0.0", False),
        ("::", False), ("192.168.1.2", False), ("a.machine", False),
    ],
)  # fmt: skip
def test_which_addresses_are_reached_from_this_machine_alone(host, own):
    assert is_this_machine(host) is own
