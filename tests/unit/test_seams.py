"""The places for a network, a tokenizer and a data set of one's own; and the one way to sample, wherever from."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

import rin
from rin.cli import main
from rin.core.kind import Kind
from rin.data import open_source
from rin.sampling import previews
from rin.sampling.pictures import grid
from rin.training.trainer import Trainer

MODEL = rin.RINConfig(
    shape=(1, 8, 8), patch_size=4, num_classes=2, num_latents=6, latent_dim=16, interface_dim=16, compute_depth=(1,),
    num_heads=2, num_read_write_heads=2,
)  # fmt: skip
TRAINING = rin.TrainingConfig(
    num_steps=2, batch_size=6, learning_rate=1e-2, lr_schedule="constant", warmup_steps=0, average_decay=0.1,
    log_every=1, held_out_every=2, checkpoint_every=2, sample_every=0,
)  # fmt: skip
EXPERIMENT = rin.ExperimentConfig(
    model=MODEL,
    diffusion=rin.DiffusionConfig(num_steps=3),
    data=rin.DataConfig(num_held_out=4, flip=True),
    training=TRAINING,
)
KIND, SET = MODEL.kind, Kind(shape=(9, 2))


class Listed:
    """Examples out of a list, which notes those that are read."""

    def __init__(self, pairs):
        self.pairs, self.read = pairs, []

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, place):
        self.read.append(place)
        return self.pairs[place]


def greys(count=40):
    """Pictures of 8x8 as uint8, each with a class."""
    values = torch.randint(0, 256, (count, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return [(picture, place % 2) for place, picture in enumerate(values)]


def vectors(count=40):
    values = torch.rand(count, 9, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return [(each, None) for each in values]


class Pixels(nn.Module):
    """A layer a pixel, without latents."""

    def __init__(self, width=8, norm=None):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, width, 1), norm or nn.Identity(), nn.Conv2d(width, 1, 1))

    def forward(self, x, gamma, condition=None, latents_prev=None, latents_only=False):
        del condition, latents_prev
        return rin.Denoised(None if latents_only else self.layers(x * gamma.view(-1, 1, 1, 1)), None)


class Others(Pixels):
    """Another class of network."""


class Flat(rin.nn.tokenizers.Tokenizer):
    """A token a row."""

    def __init__(self, width=16):
        super().__init__()
        self.enter, self.leave = nn.Linear(8, width), nn.Linear(16, 8)

    def tokenize(self, x, context=None):
        del context
        return self.enter(x.flatten(1, 2))

    def detokenize(self, interface, shape):
        return self.leave(interface).view(-1, *shape)


def refused(act):
    with pytest.raises(rin.RinError) as error:
        act()
    assert "\n" not in str(error.value)
    return str(error.value)


def weights(run):
    (file,) = run.glob("checkpoints/*/average*.safetensors")
    return load_file(file)


# Networks

NETWORKS = {
    "none": lambda: None,
    "another": Others,
    "one of another width": lambda: Pixels(4),
    "a RIN's tokenizer": lambda: rin.RIN(MODEL, tokenizer=Flat()),
}


@pytest.fixture(scope="module")
def pixels(tmp_path_factory):
    """A run of a network of one's own."""
    folder = tmp_path_factory.mktemp("runs") / "pixels"
    rin.train(EXPERIMENT, folder, data=Listed(greys()), model=Pixels())
    return folder


@pytest.mark.parametrize("other", NETWORKS)
def test_a_run_is_loaded_and_gone_on_with_by_its_own_network_alone(pixels, tmp_path, other):
    words = {"none": "Pixels", "one of another width": "another network"}.get(other, "Pixels, and this is")
    make = NETWORKS[other]
    assert words in refused(lambda: rin.train(EXPERIMENT, pixels, data=Listed(greys()), model=make()))
    rin.load(pixels, model=Pixels()).save(tmp_path)
    for folder in (pixels, tmp_path):
        if other == "another":  # loading looks at the weights, and not at where a class is defined
            assert rin.load(folder, model=make()).sample(num=2, labels=0).shape == (2, 1, 8, 8)
            continue
        said = refused(lambda folder=folder: rin.load(folder, model=make()))
        assert ("rin.load(folder, model=...)" if other == "none" else "of another configuration") in said


def test_a_rin_is_gone_on_with_as_a_rin(tmp_path):
    rin.train(EXPERIMENT, tmp_path, data=Listed(greys()))
    said = refused(lambda: rin.train(EXPERIMENT, tmp_path, data=Listed(greys()), model=Pixels()))
    assert "a RIN of its configuration, and this is" in said


@pytest.mark.parametrize(
    ("model", "training", "words"),
    [
        (Pixels(norm=nn.BatchNorm2d(8)), {}, "layers.1 keeps running statistics"),
        (Pixels(), {"recompute_blocks": True}, "training.recompute_blocks is for RINs"),
        (rin.RIN(MODEL, tokenizer=Flat(12)), {}, "tokens of width 12: model.interface_dim is 16"),
    ],
    ids=["batch normalisation", "blocks that there are not", "a tokenizer of another width"],
)
def test_what_cannot_be_trained_is_one_line(tmp_path, model, training, words):
    experiment = dataclasses.replace(EXPERIMENT, training=dataclasses.replace(TRAINING, **training))
    assert words in refused(lambda: rin.train(experiment, tmp_path, data=Listed(greys()), model=model))


# Data sets

PICTURE = greys(1)[0][0]


@pytest.mark.parametrize(
    ("example", "words"),
    [
        ((), "is a tuple of 0: give (x, label)"),
        ((PICTURE, 0, 0), "is a tuple of 3: give (x, label)"),
        ({}, "has none: give x, and label"),
        ({"picture": PICTURE, "label": 0}, "has picture, label: give x"),
        ({"x": PICTURE, "image": PICTURE}, "has x, image: give x"),
        ("PICTURE", "is str: give numbers"),
        ((PICTURE[0], 0), "has shape (8, 8), the model's is (1, 8, 8)"),
        ((PICTURE.mT.repeat(3, 1, 1), 0), "has shape (3, 8, 8)"),
        ((PICTURE.to(torch.complex64), 0), "is an array of complex64: give numbers"),
        ((PICTURE.tolist(), 0), "is list: give numbers"),
        ((torch.full((1, 8, 8), 1.5), 0), "value_range=(0, 1)"),
        ((torch.full((1, 8, 8), float("nan")), 0), "from nan to nan"),
        ((PICTURE, 2), "label 2: the classes are 0 to 1"),
        ((PICTURE, -2), "label -2: the classes are 0 to 1"),
        ((PICTURE, 1.0), "label 1.0: give a whole number, or None"),
        ((PICTURE, True), "label True"),
        ((PICTURE, "cat"), "label 'cat'"),
        ((PICTURE, torch.tensor([1])), "label tensor([1])"),
    ],
    ids=repr,
)
def test_an_example_that_is_none_is_named(example, words):
    fine = (torch.zeros(1, 8, 8, dtype=torch.uint8), 0)
    opened = open_source(rin.data.Source(Listed([fine, example]), value_range=(0.0, 1.0)), None, 0, KIND)
    said = refused(lambda: opened.training.get(torch.tensor([1])))
    assert words in said
    assert said.startswith("example 1 of the data")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int32, torch.int64])
def test_numbers_whose_range_is_not_known_are_refused_at_once(dtype):
    data = rin.data.Source(Listed([(PICTURE.to(dtype), 0)]))
    said = refused(lambda: open_source(data, None, 0, KIND))
    assert "whose least and largest value cannot be known: give rin.data.Source(data, value_range=(LOW, HIGH))" in said


def source(pairs, names=()):
    return rin.data.Source(Listed(pairs), names)


BARE = [x for x, _ in greys()]


@pytest.mark.parametrize(
    "data",
    [
        BARE,
        torch.stack(BARE).numpy(),
        torch.stack(BARE),
        torch.utils.data.TensorDataset(torch.stack(BARE)),
        [{"x": x} for x in BARE],
        [{"image": Image.fromarray(x[0].numpy()), "label": None} for x in BARE],
        [(x, -1) for x in BARE],
        [[x, None] for x in BARE],
    ],
    ids=["bare", "array", "tensor", "TensorDataset", "mapping", "Pillow", "pair", "list"],
)
def test_every_form_of_example_is_the_same_example(data):
    opened = open_source(rin.data.Source(data), None, 4, Kind(shape=(1, 8, 8)))
    expected = open_source(source(greys()), None, 4, Kind(shape=(1, 8, 8)))
    everything = torch.arange(len(expected.training))
    assert torch.equal(opened.training.get(everything)[0], expected.training.get(everything)[0])
    assert (opened.training.get(everything)[1] == -1).all()


def test_a_set_of_the_datasets_library_is_taken_as_it_is_with_the_names_of_its_classes():
    import datasets

    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    rows = {"img": [Image.fromarray(x[0].numpy()) for x, _ in greys()], "label": [label for _, label in greys()]}
    opened = open_source(rin.data.Source(datasets.Dataset.from_dict(rows, features=features)), None, 4, KIND)
    expected = open_source(source(greys()), None, 4, KIND)
    everything = torch.arange(len(expected.training))
    for one, other in zip(opened.training.get(everything), expected.training.get(everything), strict=True):
        assert torch.equal(one, other)
    assert opened.training.class_names == ("cat", "dog")


def test_the_classes_of_a_set_like_torchvisions_are_its_names():
    data = Listed(greys())
    data.classes = ["cat", "dog", "elk"]
    opened = open_source(rin.data.Source(data), None, 4, KIND)
    assert opened.training.class_names == ("cat", "dog", "elk")
    assert open_source(rin.data.Source(data), None, 4, Kind(shape=(1, 8, 8))).training.class_names == ()


@pytest.mark.parametrize(
    ("data", "held_out", "words"),
    [
        (None, source(greys()), "held_out goes with data"),
        (source([]), None, "no examples to train on"),
        (source(greys(), ("a", "b", "c")), None, "class_names are 3 and the model has 2 classes"),
        (source(greys(), ("a", "b")), source(greys(), ("b", "a")), "held_out has other class_names"),
        (source([(x if label else x.short(), label) for x, label in greys()]), None, "are int16 and some uint8"),
    ],
    ids=["held_out alone", "nothing", "too many names", "other names", "of two kinds"],
)
def test_data_that_do_not_fit_are_one_line(tmp_path, data, held_out, words):
    assert words in refused(lambda: rin.train(EXPERIMENT, tmp_path, data=data, held_out=held_out))


def test_a_picture_is_no_set():
    pairs = [(np.zeros((9, 2), np.uint8), None), (Image.new("L", (9, 2)), None)]
    opened = open_source(source(pairs), None, 0, SET)
    assert "give numbers" in refused(lambda: opened.training.get(torch.tensor([1])))


def test_a_run_is_held_to_the_number_and_the_classes_of_its_data(tmp_path):
    rin.train(EXPERIMENT, tmp_path, data=Listed(greys()))
    assert "no longer" in refused(lambda: rin.train(EXPERIMENT, tmp_path, data=Listed(greys(39))))
    assert "classes" in refused(lambda: rin.train(EXPERIMENT, tmp_path, data=source(greys(), ("a", "b"))))
    assert "data.path" in refused(lambda: rin.train(EXPERIMENT, tmp_path))


FORMS = {
    "uint8": (lambda x: x, None),
    "array": (lambda x: x.numpy(), None),
    "floats": (lambda x: x / 127.5 - 1, (-1.0, 1.0)),
    "16 bits": (lambda x: x.numpy().astype(np.uint16) * 257, None),
    "numbers of 16 bits with a sign": (lambda x: x.short(), (0.0, 255.0)),
    "bfloat16": (lambda x: (x / 255).bfloat16(), (0.0, 1.0)),
    "floats of another range": (lambda x: x / 255 * 6 - 2, (-2.0, 4.0)),
    "float64": (lambda x: x.double().numpy() / 127.5 - 1, (-1.0, 1.0)),
    "Pillow": (lambda x: Image.fromarray(x[0].numpy()), None),
}


@pytest.mark.parametrize("form", FORMS)
def test_pictures_in_every_form_give_the_same_batches(form):
    make, value_range = FORMS[form]
    pairs = [(make(x), torch.tensor(label) if form == "floats" else np.int64(label)) for x, label in greys()]
    batches = [
        next(
            rin.batches(
                open_source(data, None, 4, KIND).training, seed=0, batch_size=6, places=torch.arange(6), first_step=1,
                flip=True,
            )
        )
        for data in (source(greys()), rin.data.Source(Listed(pairs), value_range=value_range))
    ]  # fmt: skip
    (expected, condition), (x_0, same) = (KIND.examples(batch.media, batch.labels) for batch in batches)
    torch.testing.assert_close(x_0, expected, rtol=0, atol=0.01 if form == "bfloat16" else 1e-6)
    assert torch.equal(same.labels, condition.labels)


def test_labels_without_a_class_are_dropped_ones():
    data = source([(PICTURE, None), (PICTURE, -1), (PICTURE, 1)])
    assert open_source(data, None, 0, KIND).training.get(torch.arange(3))[1].tolist() == [-1, -1, 1]
    assert open_source(data, None, 0, Kind(shape=(1, 8, 8))).training.get(torch.arange(3))[1].tolist() == [-1] * 3


def test_what_is_held_out_is_never_trained_on(tmp_path):
    opened = open_source(source(greys()), None, 4, KIND)
    held_out, training = (set(part.places.tolist()) for part in (opened.held_out, opened.training))
    assert len(held_out) == 4
    assert held_out | training == set(range(40))
    assert not held_out & training
    long = dataclasses.replace(EXPERIMENT, training=dataclasses.replace(TRAINING, num_steps=12, held_out_every=0))
    data = Listed(greys())
    rin.train(long, tmp_path, data=data)
    assert set(data.read) == training  # two epochs have seen all of it


def test_a_set_of_ones_own_to_measure_on_leaves_all_to_train_on(tmp_path):
    data, held_out = Listed(greys()), Listed(greys(3))
    rin.train(EXPERIMENT, tmp_path, data=data, held_out=held_out)
    assert sorted(set(held_out.read)) == [0, 1, 2]
    assert len(open_source(rin.data.Source(data), rin.data.Source(held_out), 4, KIND).training) == 40


def test_sets_of_vectors_are_trained_on_and_never_mirrored(tmp_path):
    model = dataclasses.replace(MODEL, shape=(9, 2), num_classes=0)
    both = []
    for flip in (True, False):
        data = dataclasses.replace(EXPERIMENT.data, flip=flip)
        experiment = dataclasses.replace(EXPERIMENT, model=model, data=data)
        trained = rin.train(
            experiment, tmp_path / str(flip), data=rin.data.Source(Listed(vectors()), value_range=(-1.0, 1.0))
        )
        assert trained.sample(num=3).shape == (3, 9, 2)
        both.append(weights(tmp_path / str(flip)))
    assert all(torch.equal(value, both[1][name]) for name, value in both[0].items())


@pytest.mark.parametrize("command", [["sample", "--out", "out.gif"], ["evaluate", "--features", "nothing.pt"]])
def test_the_command_line_says_what_it_does_not_do_with_sets(tmp_path, command, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    experiment = dataclasses.replace(EXPERIMENT, model=dataclasses.replace(MODEL, shape=(9, 2), num_classes=0))
    rin.train(experiment, "run", data=rin.data.Source(Listed(vectors()), value_range=(-1.0, 1.0)))
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main([command[0], "run", *command[1:]])
    assert left.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


# One way to sample

NUM, SEED = 16, 5
"""Samples; as many as previews have of two classes, eight each."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with previews, whose weights have left their initial values."""
    folder = tmp_path_factory.mktemp("runs") / "sampled"
    training = dataclasses.replace(TRAINING, num_steps=4, sample_every=4)
    rin.train(dataclasses.replace(EXPERIMENT, training=training, seed=SEED), folder, data=Listed(greys()))
    return folder


@pytest.fixture(scope="module")
def expected(run):
    """What `rin.load(run).sample` draws, all at once, from 0 to 255."""
    labels = [label for label in (0, 1) for _ in range(NUM // 2)]
    return rin.to_pictures(rin.load(run).sample(labels, seed=SEED, batch_size=NUM))


class Sums(nn.Module):
    """Features of pictures: their rows' sums."""

    def forward(self, x):
        return x.float().sum(dim=(1, 3)) / 255


def command(*arguments):
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    assert left.value.code in (None, 0)


def of_arrays(path):
    with np.load(path) as arrays:
        return torch.from_numpy(arrays["images"]).movedim(-1, 1)


def by_python(run, batch_size, folder, monkeypatch):  # noqa: ARG001
    trained = rin.load(run)
    return rin.to_pictures(trained.sample([0] * 8 + [1] * 8, seed=SEED, batch_size=batch_size))


def by_rin_sample(run, batch_size, folder, monkeypatch):  # noqa: ARG001
    size = () if batch_size is None else ("--batch-size", batch_size)
    command("sample", run, "--num", NUM, "--seed", SEED, *size, "--out", folder / "samples.npz")
    return of_arrays(folder / "samples.npz")


def by_rin_evaluate(run, batch_size, folder, monkeypatch):  # noqa: ARG001
    size = () if batch_size is None else ("--batch-size", batch_size)
    rin.save(torch.stack([picture for picture, _ in greys()]), folder / "reference")
    torch.jit.trace(Sums(), torch.zeros(2, 1, 8, 8, dtype=torch.uint8)).save(str(folder / "features.pt"))
    command(
        "evaluate", run, "--num", NUM, "--seed", SEED, *size, "--keep", folder / "kept",
        "--features", folder / "features.pt", "--reference", folder / "reference",
    )  # fmt: skip
    return torch.cat([of_arrays(part) for part in sorted((folder / "kept").glob("*.npz"))])


def by_previews(run, batch_size, folder, monkeypatch):  # noqa: ARG001
    """Previews of the run's trainer, whose batches are as large as the memory planner says."""
    if batch_size is not None:
        monkeypatch.setattr("rin.sampling.pipeline.sampling_batch", lambda *_: batch_size)
    shown = []
    monkeypatch.setattr(previews, "grid", lambda pictures, columns: shown.append(pictures) or grid(pictures, columns))
    previews.draw_previews(rin.load(run), open_source(source(greys()), None, 4, KIND), SEED, "auto")
    return shown[0]


@pytest.mark.parametrize("batch_size", [1, 7, None])
@pytest.mark.parametrize("way", [by_python, by_rin_sample, by_rin_evaluate, by_previews])
def test_every_way_to_sample_draws_the_same_pictures(run, expected, way, batch_size, tmp_path, monkeypatch):
    drawn = way(run, batch_size, tmp_path, monkeypatch)
    assert drawn.shape == expected.shape
    assert (drawn.int() - expected.int()).abs().max() <= 1
    assert len(drawn.flatten(1).unique(dim=0)) == NUM  # no two are alike


def test_previews_of_a_run_are_what_is_sampled_from_it(run, expected):
    (sheet,) = (run / "samples").glob("*.png")
    with Image.open(sheet) as image:
        seen = torch.from_numpy(np.array(image)).int()
    assert (seen - grid(expected, 8)[0, 0].int()).abs().max() <= 1


def test_previews_are_drawn_in_batches_that_fit(monkeypatch, tmp_path):
    sizes, forward = [], rin.RIN.forward

    def noting(network, x, *others, **more):
        sizes.append(len(x))
        return forward(network, x, *others, **more)

    monkeypatch.setattr(rin.RIN, "forward", noting)
    monkeypatch.setattr("rin.sampling.pipeline.sampling_batch", lambda *_: 3)
    opened = open_source(source(greys()), None, 4, KIND)
    trainer = Trainer(TRAINING, KIND, rin.RIN(MODEL), rin.Diffusion(EXPERIMENT.diffusion), opened, tmp_path, 0, False)
    with trainer.reporter() as reporter:
        trainer.preview(reporter)
    assert max(sizes) == 3
