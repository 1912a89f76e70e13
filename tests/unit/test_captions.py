"""Captions: their bytes as tokens, the generated set of pictures with sentences, and a model that draws by them."""

import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

import rin
from rin import DataConfig, RinError, open_data
from rin.cli.sample import parse_classes
from rin.core.errors import StoppedError
from rin.core.kind import Kind
from rin.core.texts import byte_tokens, text_bytes
from rin.data.feeding.media_sets import MediaInMemory
from rin.evaluation.asked import asked_for
from rin.evaluation.captions import describe_captions, measured_captions
from rin.evaluation.images import drawn_samples
from rin.nn.size import num_parameters
from rin.toys.captions import RELATIONS, draw_scenes, is_shown, scenes
from rin.training.held_out import held_out_losses
from rin.training.trainer import Trainer

CAPTIONS = rin.preset("captions")
SMALL = replace(
    CAPTIONS.model, shape=(3, 16, 16), patch_size=4, num_latents=54, latent_dim=32, interface_dim=16,
    compute_depth=(1,), num_heads=2, num_read_write_heads=2,
)  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def few_pictures_of_a_scene():
    """Six in place of fifty: a second in place of ten each time that the set is opened."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rin.toys.captions.A_SCENE", 6)
        yield


def short(num_steps=2, **changes):
    """A run of few updates of a small network."""
    training = replace(CAPTIONS.training, num_steps=num_steps, batch_size=8, sample_every=num_steps)
    return replace(CAPTIONS, model=SMALL, training=training, data=replace(CAPTIONS.data, num_held_out=60), **changes)


# Texts


def test_bytes_stand_in_their_order_with_zeros_behind():
    assert text_bytes(["ab", "", "é"], 3).tolist() == [[97, 98, 0], [0, 0, 0], [0xC3, 0xA9, 0]]


@pytest.mark.parametrize("text", ["abcd", "éé", "a\0"])
def test_a_caption_that_does_not_fit_is_one_line(text):
    with pytest.raises(RinError, match="the model reads 3"):
        text_bytes([text], 3)


def test_a_token_says_which_byte_and_where():
    tokens = byte_tokens(text_bytes(["ba"], 3))
    assert tokens.shape == (1, 3, 259)
    assert tokens.nonzero()[:, 2].tolist() == [98, 256, 97, 257, 0, 258]


def test_labels_stand_for_captions_and_none_for_none():
    kind = Kind(shape=(3, 8, 8), caption_length=4).reading(["ab", "c"])
    condition = kind.condition(torch.tensor([1, -1, 0]))
    assert condition.labels is None
    assert condition.embedding_mask.tolist() == [
        [True, False, False, False], [False] * 4, [True, True, False, False],
    ]  # fmt: skip
    assert torch.equal(condition.embeddings[2], byte_tokens(text_bytes(["ab"], 4))[0])
    assert kind.condition(None).embeddings is None
    assert kind == Kind(shape=(3, 8, 8), caption_length=4), "texts are no part of what a model is"


@pytest.mark.parametrize("changes", [{"num_classes": 3}, {"num_condition_tokens": 2, "condition_dim": 8}])
def test_a_caption_takes_the_place_of_other_conditions(changes):
    with pytest.raises(RinError, match="caption_length takes the place"):
        replace(SMALL, **changes)


def test_the_weights_are_as_many_as_the_formula_says():
    assert num_parameters(SMALL) == sum(weight.numel() for weight in rin.RIN(SMALL).parameters())


def test_no_caption_is_a_dropped_one_and_its_place_matters():
    torch.manual_seed(0)
    network, kind = rin.RIN(SMALL).eval(), SMALL.kind.reading(["a red disc", "a disc red", ""])
    x, gamma = torch.randn(1, 3, 16, 16).expand(3, -1, -1, -1), torch.full((3,), 0.5)
    latents = network(x, gamma, kind.condition(torch.tensor([0, 1, 2]))).latents
    none = network(x, gamma, kind.condition(torch.tensor([-1, -1, -1]))).latents
    assert torch.equal(latents[2], none[2])
    assert (latents[0] - latents[2]).abs().max() > 1e-3
    assert (latents[0] - latents[1]).abs().max() > 1e-4


# The generated set


@pytest.mark.parametrize("side", [16, 24, 33])
def test_every_picture_shows_its_sentence_said_both_ways_and_no_other(side):
    chance, every = np.random.default_rng(5), scenes()
    some = [every[place] if place % 2 else every[place].turned() for place in chance.integers(0, len(every), 600)]
    pictures = draw_scenes(some, (3, side, side + 2), chance)
    sentences = [scene.sentence() for scene in some]
    assert is_shown(pictures, sentences).all()
    assert is_shown(pictures, [scene.turned().sentence() for scene in some]).all()
    assert is_shown(pictures, sentences[1:] + sentences[:1]).mean() < 0.02
    for relation in RELATIONS:
        others = [scene._replace(relation=relation) for scene in some]
        at_most = [scene.relation == relation for scene in some]
        shown = is_shown(pictures, [other.sentence() for other in others])
        assert shown[np.array(at_most)].all()
        opposite = np.array([scene.turned().relation == relation for scene in some])
        assert not shown[opposite].any()


def test_a_third_shape_is_seen():
    chance, scene = np.random.default_rng(5), scenes()[0]
    picture = draw_scenes([scene], (3, 24, 24), chance)
    assert is_shown(picture, [scene.sentence()]).all()
    picture[:, :, :4, :4] = np.array((255, 255, 0))[:, None, None]
    assert not is_shown(picture, [scene.sentence()]).any()


def test_a_sentence_of_another_kind_is_one_line():
    with pytest.raises(RinError, match=r"is no sentence of captions"):
        is_shown(np.zeros((1, 3, 24, 24), np.uint8), ["a cat"])


def test_what_is_held_out_is_whole_scenes_whose_shapes_are_trained_on():
    data = open_data(DataConfig(path="captions", num_held_out=1000), (3, 16, 16))
    names = data.training.class_names
    trained, held_out = (
        {names[label] for label in part.get(torch.arange(len(part)))[1].tolist()}
        for part in (data.training, data.held_out)
    )
    assert len(held_out) >= 30
    assert not trained & held_out
    known = {said.sentence(): said for scene in scenes() for said in (scene, scene.turned())}
    assert not {known[text].turned().sentence() for text in held_out} & trained
    words = {word for text in trained for word in text.split()}
    assert {word for text in held_out for word in text.split()} <= words


@pytest.mark.parametrize("shape", [(1, 24, 24), (3, 8, 8), (3, 4, 24, 24), (9, 3)])
def test_models_of_other_data_are_one_line(shape):
    with pytest.raises(RinError):
        open_data(DataConfig(path="captions"), shape)


# Runs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two updates."""
    folder = tmp_path_factory.mktemp("captions") / "run"
    rin.train(short(), folder)
    return folder


def test_a_run_draws_by_captions_and_is_measured(run):
    trained = rin.load(run)
    assert trained.class_names == ()
    drawn = trained.sample("a red square left of a blue disc", num=3, num_steps=2, guidance=1.0)
    assert drawn.shape == (3, 3, 16, 16)
    each = trained.sample(["a red square left of a blue disc", "a cat"], seed=0, num_steps=2)
    other = trained.sample(["a red square left of a blue disc", "a dog"], seed=0, num_steps=2)
    assert torch.equal(each[0], other[0])
    assert not torch.equal(each[1], other[1])
    assert (run / "samples" / "step-000000002.png").is_file()
    found = measured_captions(trained, run, short(), 12, num_steps=2)
    assert found["trained_on"]["right_of_real_ones"] == found["held_out"]["right_of_real_ones"] == 1
    assert found["trained_on"]["right"] < 0.2
    assert "sentences held out" in describe_captions(found)


def test_pictures_to_be_measured_are_of_the_captions_that_were_trained_on(run, monkeypatch):
    asked = list[str]()

    def sample(model, labels, num, **_):
        texts = model.kind.captions.texts[labels]
        asked.extend(bytes(text[text > 0].tolist()).decode() for text in texts)
        return torch.zeros(num, 3, 16, 16)

    trained = rin.load(run)
    monkeypatch.setattr(rin.TrainedModel, "sample", sample)
    samples = drawn_samples(trained, 30, None, asked_for(trained.kind, run, 30))
    assert [labels for _, labels in samples.parts] == [None], "captions are no classes to be told by a network"
    training = open_data(short().data, SMALL.shape).training
    _, labels = training.get(torch.linspace(0, len(training) - 1, 30).round().long())
    assert asked == [training.class_names[label] for label in labels]
    assert len(set(asked)) > 20
    assert samples.description["classes"] == "captions of the training set, evenly spaced"
    assert trained.kind.captions is None, "the model itself is as it was"


def test_a_model_whose_captions_are_not_at_hand_is_not_measured_without_them(run, tmp_path):
    trained = rin.load(run)
    with pytest.raises(RinError, match="give the run"):
        asked_for(trained.kind, tmp_path, 2)
    with pytest.raises(RinError, match="give the run"):
        drawn_samples(trained, 2, None)
    trained.kind = replace(SMALL, caption_length=0, num_condition_tokens=2, condition_dim=8).kind
    with pytest.raises(RinError, match="embeddings of your own"):
        asked_for(trained.kind, run, 2)


@pytest.mark.parametrize(
    ("labels", "said"),
    [(3, "give a text"), ([1, 2], "give a text"), (["a", None], "give a text"), ("x" * 49, "the model reads 48")],
)
def test_what_is_no_caption_is_one_line(run, labels, said):
    with pytest.raises(RinError, match=said):
        rin.load(run).sample(labels, num_steps=1)


@pytest.mark.parametrize("classes", ["3", "cat"])
def test_classes_asked_of_a_model_that_draws_by_captions_are_one_line(run, classes):
    with pytest.raises(RinError, match="give --prompt in its place"):
        parse_classes(classes, rin.load(run))


def test_without_dropped_captions_one_is_needed(tmp_path):
    trained = rin.train(short(1, diffusion=replace(CAPTIONS.diffusion, label_drop_rate=0.0)), tmp_path / "run")
    with pytest.raises(RinError, match="give texts"):
        trained.sample(num=2, num_steps=1)


def test_captions_of_arrays_are_those_of_all_splits(tmp_path):
    texts = np.array([f"number {number}" for number in range(40)])
    x = np.arange(40, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 16, 16), np.uint8)
    np.savez(tmp_path / "a.npz", train_x=x[:30], train_captions=texts[:30], test_x=x[30:], test_captions=texts[30:])
    for split, part in (("train", slice(30)), ("test", slice(30, None))):
        (tmp_path / "b" / split).mkdir(parents=True)
        np.save(tmp_path / "b" / split / "x.npy", x[part])
        (tmp_path / "b" / split / "captions.txt").write_text("\n".join(texts[part]))
    for path in ("a.npz", "b"):
        data = open_data(DataConfig(path=str(tmp_path / path), num_held_out=100), (3, 16, 16))
        for part in (data.training, data.held_out):
            pictures, labels = part.get(torch.arange(len(part)))
            for picture, label in zip(pictures, labels.tolist(), strict=True):
                assert part.class_names[label] == f"number {int(picture[0, 0, 0])}"
    experiment = replace(short(1), data=DataConfig(path=str(tmp_path / "a.npz"), num_held_out=100))
    trained = rin.train(experiment, tmp_path / "run")
    assert trained.sample(["number 3"] * 2, num_steps=1).shape == (2, 3, 16, 16)


def test_a_caption_longer_than_the_model_reads_is_refused_before_anything_is_written(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((20, 3, 16, 16), np.uint8), captions=np.array(["long " * 12] * 20))
    with pytest.raises(RinError, match=r"--model\.caption-length"):
        rin.train(replace(short(1), data=DataConfig(path=str(tmp_path / "a.npz"))), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_captions_of_ones_own_data_are_learned(tmp_path):
    pictures = [(np.full((3, 16, 16), 40 * number % 256, np.uint8), number % 3) for number in range(30)]
    source = rin.data.Source(pictures, class_names=("a dark one", "a grey one", "a light one"))
    seen, condition = [], Kind.condition

    def watched(self, labels, context=None, tokens=None):
        seen.append(condition(self, labels, context, tokens))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Kind, "condition", watched)
        rin.train(short(1), tmp_path / "run", data=source)
    assert all(each.embeddings is not None and each.embedding_mask.any(1).all() for each in seen[:1])


def test_held_out_losses_are_those_of_the_captions(run):
    trained, data = rin.load(run, device="cpu"), open_data(short().data, (3, 16, 16))
    kept = {"model": trained.model, "diffusion": trained.diffusion, "batch_size": 8, "device": torch.device("cpu")}
    with torch.no_grad():
        trained.model.condition.token.weight.normal_()
    plain = held_out_losses(kind=trained.kind, images=data.held_out, **kept)
    read = held_out_losses(kind=trained.kind.reading(data.held_out.class_names), images=data.held_out, **kept)
    without = MediaInMemory(*data.held_out.get(torch.arange(len(data.held_out))), ())
    assert plain == read
    assert plain != held_out_losses(kind=trained.kind, images=without, **kept)


def test_data_without_captions_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((20, 3, 16, 16), np.uint8))
    with pytest.raises(RinError, match="has no captions to learn from"):
        rin.train(replace(short(1), data=DataConfig(path=str(tmp_path / "a.npz"))), tmp_path / "run")


def written(path, captions):
    """Pictures with captions, in one file."""
    x = np.arange(len(captions), dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 16, 16), np.uint8)
    np.savez(path, x=x, captions=np.array(captions))
    return DataConfig(path=str(path), num_held_out=4)


def test_a_run_that_was_stopped_goes_on_with_its_captions(tmp_path, monkeypatch):
    data = written(tmp_path / "a.npz", [f"number {number % 7}" for number in range(40)])
    whole = rin.train(replace(short(4), data=data), tmp_path / "whole")
    update = Trainer.update

    def stopping(trainer, batch):
        if trainer.step == 2:
            signal.raise_signal(signal.SIGTERM)
        return update(trainer, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", stopping)
        with pytest.raises(StoppedError):
            rin.train(replace(short(4), data=data), tmp_path / "run")
    resumed = rin.train(replace(short(4), data=data), tmp_path / "run")
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name


def test_captions_that_have_changed_are_refused(tmp_path):
    data = written(tmp_path / "a.npz", [f"number {number % 7}" for number in range(40)])
    rin.train(replace(short(2), data=data), tmp_path / "run")
    written(tmp_path / "a.npz", [f"number {number % 5}" for number in range(40)])
    with pytest.raises(RinError, match="no longer what the run"):
        rin.train(replace(short(2), data=data), tmp_path / "run")


def test_bytes_and_places_begin_as_large_as_learned_latents():
    model = rin.RIN(SMALL)
    assert model.condition.token.weight.std().item() == pytest.approx(1, abs=0.02)
    assert model.latents.std().item() == pytest.approx(0.88, abs=0.1)  # 1, cut at two deviations
