"""Captions that a text encoder reads, embedded once or whenever they are asked for, and embeddings of one's own."""

import dataclasses
import json
import logging
import sys
from itertools import count

import numpy as np
import pytest
import torch
from PIL import Image

import rin
from rin import DataConfig, RinError, open_data
from rin.core import text_encoders
from rin.core.text_encoders import text_encoder
from rin.core.texts import EmbeddedCaptions
from rin.data.prepared import embedding
from rin.data.prepared.embedding import read_embeddings
from rin.data.preparing import Preparation, prepare_set
from rin.training import checkpoint
from tests.unit.models import short_run, small, weights_of
from tests.unit.text_encoders import make_encoder

TEXTS = ["a red disc", "a blue square left of a red disc", "a green disc", "a red square", "a blue disc"] * 4
SHAPE, TOKENS, WIDTH = (3, 8, 8), 6, 16


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("encoder") / "t5", WIDTH)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for number, text in enumerate(TEXTS):
        Image.new("RGB", (8, 8), (12 * number, 0, 255 - 12 * number)).save(folder / f"{number:02}.png")
        (folder / f"{number:02}.txt").write_text(text)
    return folder


def prepared(pictures, folder, encoder="", tokens=TOKENS):
    preparation = Preparation(
        source=str(pictures), shape=SHAPE, captions="txt", text_encoder=encoder, num_tokens=tokens
    )
    prepare_set(preparation, folder)
    return folder


@pytest.fixture(scope="module")
def embedded(pictures, encoder, tmp_path_factory):
    return prepared(pictures, tmp_path_factory.mktemp("sets") / "set", encoder)


def experiment(path="", num_steps=2, model=None, **data):
    return rin.ExperimentConfig(
        model=dataclasses.replace(small(shape=SHAPE, patch_size=4, num_latents=10, num_classes=5), **(model or {})),
        diffusion=rin.DiffusionConfig(num_steps=2, label_drop_rate=0.1),
        data=DataConfig(path=str(path) or "digits", num_held_out=2, flip=False, num_workers=0, **data),
        training=short_run(num_steps),
    )


def texts_of(media):
    return [media.class_names[label] for label in media.get(torch.arange(len(media)))[1].tolist()]


def test_a_prepared_set_has_the_captions_of_its_source(pictures, tmp_path):
    folder = prepared(pictures, tmp_path / "set")
    opened, source = (
        open_data(DataConfig(path=str(path), num_held_out=2, captions=captions), SHAPE)
        for path, captions in ((folder, ""), (pictures, "txt"))
    )
    assert opened.has_captions
    assert texts_of(opened.training) == texts_of(source.training)
    assert texts_of(opened.held_out) == texts_of(source.held_out)
    with pytest.raises(RinError, match="has its own"):
        open_data(DataConfig(path=str(folder), captions="txt"), SHAPE)


def test_captions_of_a_prepared_set_are_not_taken_for_classes(pictures, tmp_path):
    folder = prepared(pictures, tmp_path / "set")
    with pytest.raises(RinError, match="has captions, and the model draws by none"):
        rin.train(experiment(folder), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    model = {"num_classes": 0, "caption_length": 40, "num_latents": 44}
    rin.train(experiment(folder, model=model), tmp_path / "run")
    rin.train(experiment(pictures, model=model, captions="txt"), tmp_path / "other")
    assert weights_of(tmp_path / "run") == weights_of(tmp_path / "other")


def test_embeddings_are_the_hidden_states_of_each_caption(embedded, encoder):
    found = read_embeddings(embedded, TEXTS)
    from transformers import AutoTokenizer, T5EncoderModel

    tokenizer, network = AutoTokenizer.from_pretrained(encoder), T5EncoderModel.from_pretrained(encoder).eval()
    tokens, mask = found.tokens(torch.tensor([1, 3, -1]))
    assert mask.sum(1).tolist() == [6, 4, 0]  # the second of 9 tokens, which are cut
    with torch.no_grad():
        alone = network(**tokenizer("a red square", return_tensors="pt")).last_hidden_state[0]
    torch.testing.assert_close(tokens[1, :4], alone, atol=2e-3, rtol=2e-3)
    directly, counted = text_encoder(encoder, TOKENS).encode([TEXTS[1], TEXTS[3]])
    torch.testing.assert_close(tokens[:2][mask[:2]], directly[counted])


def test_embedding_that_was_stopped_goes_on_and_ends_with_the_same_bytes(
    embedded, pictures, encoder, tmp_path, monkeypatch
):
    monkeypatch.setattr(embedding, "_AT_ONCE", 2)
    honest, calls = text_encoders.TextEncoder.encode, count()

    def stopped(self, texts, device="cpu"):
        if next(calls) == 1:
            raise KeyboardInterrupt
        return honest(self, texts, device)

    monkeypatch.setattr(text_encoders.TextEncoder, "encode", stopped)
    with pytest.raises(KeyboardInterrupt):
        prepared(pictures, tmp_path / "set", encoder)
    with pytest.raises(RinError, match="not finished"):
        open_data(DataConfig(path=str(tmp_path / "set")), SHAPE)
    asked = []
    monkeypatch.setattr(
        text_encoders.TextEncoder, "encode", lambda self, texts: asked.extend(texts) or honest(self, texts)
    )
    prepared(pictures, tmp_path / "set", encoder)
    assert len(asked) == 3  # of five, two of which were there
    for name in (embedding.TABLE, embedding.TOKENS):
        found, whole = (np.load(folder / name) for folder in (tmp_path / "set", embedded))
        np.testing.assert_allclose(found, whole, atol=1e-3)
    asked.clear()
    prepared(pictures, tmp_path / "set", encoder)
    assert not asked
    prepared(pictures, tmp_path / "set", make_encoder(tmp_path / "other", WIDTH, seed=1))
    assert len(asked) == 5


def test_a_run_learns_from_embeddings_and_draws_by_a_prompt(embedded, encoder, tmp_path):
    trained = rin.train(experiment(embedded), tmp_path / "run")
    assert trained.config.num_classes == 0
    assert (trained.config.text_encoder, *trained.config.embedding_shape) == (encoder, TOKENS, WIDTH)
    with torch.no_grad():
        trained.model.condition.token.weight.normal_()
    drawn = trained.sample("a red disc", num=2, seed=1)
    tokens, mask = text_encoder(encoder, TOKENS).encode(["a red disc"])
    given = rin.Condition(embeddings=tokens, embedding_mask=mask)
    assert torch.equal(drawn, trained.sample(given, num=2, seed=1))
    assert not torch.equal(drawn, trained.sample("a blue disc", num=2, seed=1))
    assert (tmp_path / "run" / "samples").is_dir()
    saved = tmp_path / "model"
    trained.save(saved)
    assert torch.equal(rin.load(saved, device="cpu").sample("a red disc", num=2, seed=1), drawn)


def test_captions_are_read_as_they_are_needed_where_no_set_is_prepared(pictures, embedded, encoder, tmp_path):
    model = {"text_encoder": encoder, "num_condition_tokens": TOKENS}
    rin.train(experiment(pictures, model=model, captions="txt"), tmp_path / "run")
    rin.train(experiment(embedded), tmp_path / "prepared")
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / run / "log.jsonl").read_text().splitlines()]
        for run in ("run", "prepared")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_run_that_was_stopped_goes_on_with_its_embeddings(embedded, tmp_path):
    rin.train(experiment(embedded, num_steps=4), tmp_path / "whole")
    rin.train(experiment(embedded, num_steps=4), tmp_path / "part")
    for later in checkpoint.all_checkpoints(tmp_path / "part" / checkpoint.FOLDER)[2:]:
        for file in later.iterdir():
            file.unlink()
        later.rmdir()
    rin.train(experiment(embedded, num_steps=4), tmp_path / "part")
    assert weights_of(tmp_path / "part") == weights_of(tmp_path / "whole")


class Own:
    """Examples with a row of the embeddings each."""

    def __init__(self, num=20, rows=5):
        self.num, self.rows = num, rows

    def __len__(self):
        return self.num

    def __getitem__(self, number):
        return torch.full(SHAPE, number / self.num), number % self.rows


def own(embeddings, **given):
    return rin.data.Source(Own(), value_range=(0.0, 1.0), embeddings=embeddings, **given)


def test_embeddings_of_ones_own_are_learned_from(tmp_path):
    embeddings = np.random.default_rng(0).normal(size=(5, 3, 7)).astype(np.float32)
    np.save(tmp_path / "embeddings.npy", embeddings)
    mask = np.ones((5, 3), bool)
    mask[2, 1:] = False
    embeddings[2, 1:] = np.nan  # what is masked out is not looked at
    source = own(torch.from_numpy(embeddings), embedding_mask=mask)
    trained = rin.train(experiment(), tmp_path / "run", data=source)
    assert trained.config.embedding_shape == (3, 7)
    with torch.no_grad():
        trained.model.condition.token.weight.normal_()
    given = rin.Condition(
        embeddings=torch.from_numpy(embeddings[[2, 3]]), embedding_mask=torch.from_numpy(mask[[2, 3]])
    )
    drawn = trained.sample(given, seed=0)
    assert torch.isfinite(drawn).all()
    torch.testing.assert_close(drawn[:1], trained.sample(given.rows(slice(0, 1)), num=1, seed=0), atol=1e-4, rtol=0)
    rin.train(experiment(), tmp_path / "mapped", data=own(np.load(tmp_path / "embeddings.npy", mmap_mode="r")))
    assert weights_of(tmp_path / "mapped") != weights_of(tmp_path / "run")  # another mask


@pytest.mark.parametrize(
    ("embeddings", "mask", "words"),
    [
        (np.zeros((5, 3)), None, r"embeddings are float64 \(5, 3\): give floats \(rows k dim\)"),
        (np.zeros((5, 3, 7), int), None, "embeddings are int64"),
        (np.zeros((5, 3, 7)), np.ones((5, 2), bool), r"embedding_mask is bool \(5, 2\): give booleans \(5, 3\)"),
        (np.full((5, 3, 7), np.inf), None, "row 0 of the embeddings is not finite"),
        (np.zeros((4, 3, 7)), None, "has the label 4: the classes are 0 to 3"),
        (None, None, "the data has no embeddings"),
    ],
)
def test_embeddings_that_are_none_are_one_line(tmp_path, embeddings, mask, words):
    model = {"num_classes": 0, "num_condition_tokens": 3, "condition_dim": 7}
    with pytest.raises(RinError, match=words):
        rin.train(experiment(model=model), tmp_path / "run", data=own(embeddings, embedding_mask=mask))


def with_mask(mask):
    """A condition that nobody has checked, as those outside of the tests are."""
    condition = rin.Condition(embeddings=torch.zeros(1, 3, 7))
    object.__setattr__(condition, "embedding_mask", mask)
    return condition


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (rin.Condition(labels=torch.zeros(1, dtype=torch.int64)), "give embeddings"),
        (rin.Condition(embeddings=torch.zeros(1, 3, 6)), r"this model draws by \(b 3 7\)"),
        (rin.Condition(embeddings=torch.full((1, 3, 7), torch.nan)), "not finite"),
        (with_mask(torch.ones(1, 3).int()), "embedding_mask is int32: give booleans"),
        ([0], "trained without classes"),
    ],
)
def test_a_condition_of_another_model_is_one_line(labels, words):
    config = small(shape=SHAPE, patch_size=4, num_condition_tokens=3, condition_dim=7, num_latents=10, num_classes=0)
    trained = rin.TrainedModel(rin.RIN(config), rin.Diffusion(rin.DiffusionConfig(label_drop_rate=0.1)), config)
    with pytest.raises(RinError, match=words):
        trained.sample(labels)
    plain = small(shape=SHAPE, patch_size=4)
    other = rin.TrainedModel(rin.RIN(plain), rin.Diffusion(rin.DiffusionConfig()), plain)
    with pytest.raises(RinError, match="does not draw by embeddings"):
        other.sample(rin.Condition(embeddings=torch.zeros(1, 3, 7)))


def test_an_encoder_that_is_none_is_one_line(pictures, encoder, tmp_path, monkeypatch):
    with pytest.raises(RinError, match="there is no text encoder"):
        prepared(pictures, tmp_path / "set", str(pictures))
    model = {"text_encoder": str(tmp_path), "num_condition_tokens": TOKENS}
    with pytest.raises(RinError, match="there is no text encoder"):
        rin.train(experiment(pictures, model=model, captions="txt"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(RinError, match=r"say how many, as in --model\.num-condition-tokens"):
        small(text_encoder=encoder)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(RinError, match=r"transformers is needed for text encoders: pip install"):
        prepared(pictures, tmp_path / "set", encoder)


def test_each_prompt_that_is_cut_is_told(embedded, tmp_path, caplog):
    trained = rin.train(experiment(embedded), tmp_path / "run")
    for prompt, told in ((TEXTS[1], True), (TEXTS[1] + " left of a disc", True), (TEXTS[0], False)):
        caplog.clear()
        trained.sample(prompt, seed=0)
        assert ("are cut there" in caplog.text) == told, prompt


def test_an_encoder_of_another_width_is_refused(embedded, tmp_path):
    trained = rin.train(experiment(embedded), tmp_path / "run")
    config = dataclasses.replace(trained.config, text_encoder=make_encoder(tmp_path / "wide", 2 * WIDTH))
    other = rin.TrainedModel(trained.model, trained.diffusion, config)
    with pytest.raises(RinError, match=f"gives tokens of width {2 * WIDTH}, and the model takes {WIDTH}"):
        other.sample("a red disc")


def test_embeddings_beside_a_text_encoder_are_refused(encoder, tmp_path):
    model = {"text_encoder": encoder, "num_condition_tokens": TOKENS}
    with pytest.raises(RinError, match=r"the data has embeddings, and model\.text_encoder would make others"):
        rin.train(experiment(model=model), tmp_path / "run", data=own(np.zeros((5, TOKENS, WIDTH))))


def test_embeddings_of_ones_own_are_looked_through_once(tmp_path, monkeypatch):
    calls = []
    honest = np.isfinite
    monkeypatch.setattr(np, "isfinite", lambda x: calls.append(np.shape(x)) or honest(x))
    rin.train(experiment(), tmp_path / "run", data=own(np.zeros((5, 3, 7), np.float32)))
    assert calls.count((5, 3, 7)) == 1


def test_captions_that_are_cut_are_told(pictures, encoder, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        prepared(pictures, tmp_path / "set", encoder, tokens=5)
    assert "1 of 5 captions have more than 5 tokens and are cut there" in caplog.text


@pytest.mark.parametrize("damage", ["texts", "table", "empty", "about"])
def test_damaged_embeddings_are_one_line(pictures, encoder, tmp_path, damage):
    folder = prepared(pictures, tmp_path / "set", encoder)
    if damage in ("table", "empty"):
        (folder / embedding.TABLE).write_bytes(b"no table" if damage == "table" else b"")
    else:
        about = json.loads((folder / embedding.ABOUT).read_text())
        (folder / embedding.ABOUT).write_text(json.dumps(about | {"texts": "others"} if damage == "texts" else {}))
    with pytest.raises(RinError, match="give the rin prepare command with --text-encoder again"):
        open_data(DataConfig(path=str(folder)), SHAPE)
    prepared(pictures, folder, encoder)
    assert isinstance(open_data(DataConfig(path=str(folder)), SHAPE).embedded, EmbeddedCaptions)


def test_more_captions_than_a_set_keeps_are_refused_before_any_work(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("rin.data.prepared_from._MOST_CAPTIONS", 100)
    with pytest.raises(RinError, match="has 5 captions of 0 MiB, and a set keeps"):
        prepared(pictures, tmp_path / "set")
    assert not (tmp_path / "set").exists()
