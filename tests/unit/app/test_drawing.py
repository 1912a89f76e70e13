"""Samples drawn step by step for a page, without a page."""

import threading
import time

import pytest
import torch
from PIL import Image

from rin import RinError
from rin.app.drawing import Choices, drawn
from rin.app.opened import shares_of_operations
from rin.app.results import files, picture
from rin.app.routing import explained
from rin.costs.operations import cost
from tests.unit.app.opened import TOYS, opened
from tests.unit.models import small


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Each kind of toy, opened."""
    return {kind: opened(tmp_path_factory.mktemp("model"), kind) for kind in TOYS}


@pytest.fixture(scope="module")
def model(models):
    return models["pictures"]


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "drawing"]


def choices(kind, **others):
    condition = Image.new("RGB", (4, 4), (200, 10, 10)) if kind == "from a picture" else None
    return Choices(condition=condition, prompt="a red disc", **others) if kind == "captions" else Choices(
        condition=condition, **others
    )  # fmt: skip


@pytest.mark.parametrize("kind", TOYS)
def test_it_tells_of_steps_and_ends_with_what_the_model_samples(models, tmp_path, kind):
    told = list(drawn(models[kind], choices(kind, num=3, seed=2), threading.Event()))
    steps = [state.step for state in told]
    assert steps == sorted(steps)
    assert steps[-1] == told[-1].num_steps == 4
    assert [state.denoising is None for state in told] == [True] * (len(told) - 1) + [False]
    trained = models[kind].trained()
    asked = choices(kind).prompt or told[-1].labels
    torch.testing.assert_close(
        told[-1].samples, trained.sample(asked, 3, seed=2, condition=choices(kind).condition), rtol=0, atol=1e-5
    )
    seen = picture(told[-1], models[kind].kind)
    assert (seen is None) == (kind == "sets of many numbers")
    written = files(told[-1], models[kind].kind, models[kind].values, models[kind].class_names, tmp_path)
    names = {"clips": ["clips.gif", "clips.mp4", "clips.png"], "sets of many numbers": ["samples.npz"]}
    images = kind in ("pictures", "captions", "from a picture")
    assert [path.name for path in written] == (
        ["samples.png", "denoising.gif"] if images else names.get(kind, ["samples.png"])
    )
    assert all(path.stat().st_size for path in written)


def test_who_asks_slowly_passes_steps_over_and_gets_the_last(model):
    states = drawn(model, Choices(num=1, num_steps=30), threading.Event())
    next(states)
    while model.computing.locked():
        time.sleep(0.01)
    rest = [(state.step, state.denoising is None) for state in states]
    assert rest == [(30, True), (30, False)]


def test_what_does_not_fit_at_once_is_shown_batch_after_batch(model, monkeypatch):
    monkeypatch.setattr("rin.sampling.pipeline.sampling_batch", lambda *_: 2)
    passed = list(drawn(model, Choices(num=5, num_steps=40), threading.Event()))
    assert [state.step for state in passed] == sorted(state.step for state in passed)
    assert {state.num_steps for state in passed} == {120}
    assert passed[-1].step == 120
    begun = [sum(bool(sample.any()) for sample in state.samples) for state in passed]
    assert set(begun) == {2, 4, 5}
    assert begun == sorted(begun)
    torch.testing.assert_close(passed[-2].samples, passed[-1].samples)
    assert len(passed[-1].denoising[0]) == 5


def test_choices_are_those_of_the_model(model):
    given = Choices(classes=(4,), num=2, seed=9, sampler="ddpm", num_steps=3, guidance=0.7, num_latents=5)
    *_, last = drawn(model, given, threading.Event())
    expected = model.trained().sample([4, 4], seed=9, sampler="ddpm", num_steps=3, guidance=0.7, num_latents=5)
    torch.testing.assert_close(last.samples, expected, rtol=0, atol=1e-5)
    assert last.labels == [4, 4]
    *_, spread = drawn(model, Choices(num=5), threading.Event())
    assert spread.labels == [0, 1, 2, 3, 4]


def test_it_stops_within_a_step_and_leaves_no_thread(model):
    stop, steps = threading.Event(), []
    for state in drawn(model, Choices(num=1, num_steps=1000), stop):
        steps.append(state.step)
        if len(steps) == 3:
            stop.set()
    assert 3 <= steps[-1] < 500
    assert not threads()
    assert not model.computing.locked()


def test_it_stops_before_it_begins(model):
    stop = threading.Event()
    stop.set()
    assert list(drawn(model, Choices(), stop)) == []


def test_it_ends_when_nobody_waits_for_it(model):
    passes = []
    watched = model.trained().model.register_forward_hook(lambda *_: passes.append(1))
    states = drawn(model, Choices(num=1, num_steps=1000), threading.Event())
    assert next(states).step < 500
    states.close()
    watched.remove()
    assert len(passes) < 500
    assert not threads()
    assert not model.computing.locked()


def test_drawings_wait_for_one_another(model):
    first = drawn(model, Choices(num=1, num_steps=1000), threading.Event())
    next(first)
    stop, second = threading.Event(), []
    waiting = threading.Thread(target=lambda: second.extend(drawn(model, Choices(num=1), stop)))
    waiting.start()
    for _ in range(5):
        next(first)
    assert second == []
    first.close()
    waiting.join(30)
    assert second[-1].step == 4


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"num": 0}, "take 1 to 16"),
        ({"num": 17}, "take 1 to 16"),
        ({"classes": (5,)}, "class 5 is out of range"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**31}, "seed"),
        ({"num_steps": -2}, "num_steps"),
        ({"sampler": "euler"}, "sampler"),
        ({"num_latents": 99}, "latents"),
        ({"average": 0.5}, "no average"),
    ],
)
@pytest.mark.usefixtures("unhooked")
def test_what_cannot_be_drawn_is_told(model, wrong, words):
    with pytest.raises(RinError, match=words):
        list(drawn(model, Choices(**wrong), threading.Event()))
    assert not threads()
    assert not model.computing.locked()


def test_a_picture_to_draw_from_is_asked_for(models):
    with pytest.raises(RinError, match="draws from a picture of 4x4"):
        list(drawn(models["from a picture"], Choices(), threading.Event()))


def test_shares_of_operations_are_those_that_are_counted():
    config = small(num_latents=30, num_latents_min=7)
    shares = shares_of_operations(config)
    assert list(shares) == list(range(7, 31))
    for count in (7, 8, 13, 22, 29, 30):
        assert shares[count] == pytest.approx(cost(config, count).operations / cost(config).operations, rel=1e-6)
    assert shares[30] == pytest.approx(1.0)
    assert shares[7] < 0.6


def test_what_latents_read_can_be_gone_through(models):
    found = explained(models["pictures"], Choices(classes=(2,), num_steps=9), 3)
    assert found.times == pytest.approx([1 - step / 9 for step in range(9)])
    assert len(found.moments) == 9
    assert len({picture.tobytes() for picture in found.moments}) == 9
    assert found.sheet.width > found.sheet.height  # six columns of five pictures
    many = explained(models["pictures"], Choices(num_steps=60), 3)
    assert len(many.times) == 24
    with pytest.raises(RinError, match="no pictures of signals"):
        explained(models["signals"], Choices(), 3)
    assert len(explained(models["clips"], Choices(), 2).moments) == 4
