"""Pictures with others that they are drawn from: in folders, tars and tables, arrays and data sets of one's own."""

import tarfile
from dataclasses import replace
from io import BytesIO

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

import rin
from rin import DataConfig, RinError, open_data
from rin.data.files import pairs, tables
from rin.data.opening import with_whole_paths
from rin.data.splits import open_splits
from rin.evaluation.restored import measured_restored
from rin.model_files import read_experiment
from tests.unit.models import short_run, small, weights_of

SHAPE = (3, 8, 8)


def encoded(number, size=(8, 8), ending="PNG"):
    """A picture of one colour, by number: the target has it in red, the condition (negative) in blue."""
    file = BytesIO()
    level = 10 * abs(number)
    Image.new("RGB", size, (level, 0, 0) if number >= 0 else (0, 0, level)).save(file, ending)
    return file.getvalue()


def in_folders(place, num=12, missing=()):
    for number in range(num):
        for name, file, content in (
            ("targets", f"{'ab'[number % 2]}/{number}.png", encoded(number)),
            ("inputs", f"{'ab'[number % 2]}/{number}.bmp", encoded(-number, (20, 10), "BMP")),
        ):
            if (name, number) not in missing:
                path = place / name / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
    return {"path": str(place / "targets"), "condition": str(place / "inputs")}


def in_a_tar(place, num=12):
    with tarfile.open(place / "train.tar", "w") as tar:
        for number in range(num):
            parts = (("target.png", encoded(number)), ("input.png", encoded(-number)))
            for ending, content in parts[:: 1 if number % 2 else -1]:
                member = tarfile.TarInfo(f"{number:03}.{ending}")
                member.size = len(content)
                tar.addfile(member, BytesIO(content))
    return {"path": str(place / "train.tar"), "column": "target.png", "condition": "input.png"}


def in_a_table(place, num=12):
    rows = {
        name: [{"bytes": encoded(sign * number), "path": None} for number in range(num)]
        for name, sign in (("image", 1), ("input", -1))
    }
    table = datasets.Dataset.from_dict(rows | {"label": [number % 2 for number in range(num)]})
    for name in ("image", "input"):
        table = table.cast_column(name, datasets.Image())
    table.to_parquet(place / "train-0.parquet")
    return {"path": str(place), "column": "image", "condition": "input"}


WAYS = {"folders": in_folders, "tar": in_a_tar, "table": in_a_table}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("memory_gib", [4.0, 0.0])
def test_each_picture_has_its_own(tmp_path, way, memory_gib):
    opened = open_data(DataConfig(**WAYS[way](tmp_path), num_held_out=2, memory_gib=memory_gib), (6, 8, 8))
    assert opened.degrade == "pair"
    for media, num in ((opened.training, 11), (opened.held_out, 1)):
        pictures, labels = media.get(torch.arange(num))
        numbers = pictures[:, 0, 0, 0] // 10
        assert (pictures[:, 0] == 10 * numbers[:, None, None]).all()
        assert (pictures[:, 5] == 10 * numbers[:, None, None]).all()
        assert not pictures[:, [1, 2, 3, 4]].any()
        assert labels.tolist() == ([-1] * num if way == "tar" else [int(number) % 2 for number in numbers])


def experiment(data, num_steps=4):
    return rin.ExperimentConfig(
        model=small(shape=SHAPE, patch_size=4, num_classes=2),
        diffusion=rin.DiffusionConfig(num_steps=2, label_drop_rate=0.1),
        data=data,
        training=short_run(num_steps),
    )


def test_a_model_learns_from_pairs_and_draws_from_a_picture(tmp_path):
    data = DataConfig(**in_folders(tmp_path), num_held_out=2)
    trained = rin.train(experiment(data), tmp_path / "run")
    assert trained.kind.condition_shape == trained.kind.shape == SHAPE
    condition = Image.open(tmp_path / "inputs" / "a" / "0.bmp")
    assert trained.sample(condition=condition.resize((8, 8)), num=2).shape == (2, *SHAPE)
    assert list((tmp_path / "run" / "samples").glob("*.png"))
    found = measured_restored(trained, tmp_path / "run", read_experiment(tmp_path / "run"), None)
    assert found.keys() == {"num", "degrade", "psnr"}
    assert found["num"] == 1


def test_what_is_learned_is_the_target_given_its_condition(tmp_path, monkeypatch):
    seen = []
    honest = rin.Diffusion.loss

    def watched(self, model, x_0, condition, **options):
        seen.append((x_0, condition.context))
        return honest(self, model, x_0, condition, **options)

    monkeypatch.setattr(rin.Diffusion, "loss", watched)
    rin.train(experiment(DataConfig(**in_folders(tmp_path), flip=True), num_steps=2), tmp_path / "run")
    for x_0, context in seen:
        assert x_0.shape == context.shape == (4, *SHAPE)
        assert torch.equal(x_0[:, 0], context[:, 2])  # red as the other is blue
        assert (x_0[:, 2] == -1).all()


@pytest.mark.parametrize("way", ["array", "own"])
def test_arrays_and_ones_own_data_have_both_in_one_example(tmp_path, way):
    levels = np.arange(12, dtype=np.uint8)[:, None, None, None] * np.ones((1, 6, 8, 8), np.uint8)
    if way == "array":
        np.save(tmp_path / "x.npy", levels)
        given, data = {}, DataConfig(path=str(tmp_path / "x.npy"), degrade="pair")
    else:
        given, data = {"data": torch.from_numpy(levels)}, DataConfig(degrade="pair")
    made = experiment(data)
    made = rin.ExperimentConfig(
        model=small(shape=SHAPE, patch_size=4, num_classes=0), diffusion=made.diffusion, data=data,
        training=made.training,
    )  # fmt: skip
    trained = rin.train(made, tmp_path / "run", **given)
    assert trained.kind.is_paired
    before = weights_of(tmp_path / "run")
    rin.train(made, tmp_path / "run", **given)
    assert weights_of(tmp_path / "run") == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"degrade": "grey"}, "without degrade"),
        ({"bits": 16}, "pictures of 8 bits"),
        (
            {"condition": "no such folder"},
            "data.condition is 'no such folder', which is no folder, and .* has no columns",
        ),
        ({"path": "digits"}, "there is no picture that digit 0 is drawn from"),
    ],
)
def test_pairs_that_there_are_not_are_one_line(tmp_path, changes, words):
    with pytest.raises(RinError, match=words):
        open_data(DataConfig(**in_folders(tmp_path) | changes), (6, 8, 8))


def test_a_picture_without_another_is_named_and_others_left_over_are_told(tmp_path):
    data = in_folders(tmp_path, missing=[("inputs", 3)])
    with pytest.raises(RinError, match=r"there is no picture that .*3\.png is drawn from"):
        open_data(DataConfig(**data), (6, 8, 8))
    (tmp_path / "targets" / "b" / "3.png").unlink()
    (tmp_path / "targets" / "a" / "4.png").unlink()
    opened = open_data(DataConfig(**data), (6, 8, 8))
    assert any("1 pictures that belong to none are not used" in note for note in opened.notes)
    pictures, _ = opened.training.get(torch.arange(len(opened.training)))
    assert torch.equal(pictures[:, 0], pictures[:, 5])


@pytest.mark.parametrize("which", ["targets", "inputs"])
def test_two_pictures_of_one_name_are_refused(tmp_path, which):
    data = in_folders(tmp_path)
    (tmp_path / which / "a" / "0.jpg").write_bytes(encoded(5))
    with pytest.raises(RinError, match=r"0\.\w+ and .*0\.\w+ have the same name but for their endings"):
        open_data(DataConfig(**data), (6, 8, 8))


def test_rows_of_two_tables_are_refused(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        in_a_table(tmp_path / name)
    data = DataConfig(path=str(tmp_path / "one"), column="image", condition=str(tmp_path / "other"))
    with pytest.raises(RinError, match="rows of two tables have no names to be paired by"):
        open_data(data, (6, 8, 8))


def test_a_table_is_not_read_to_be_paired(tmp_path, monkeypatch):
    config = DataConfig(**in_a_table(tmp_path), num_held_out=0)
    read = []
    honest = tables.file_of
    monkeypatch.setattr(tables, "file_of", lambda value: read.append(1) or honest(value))
    opened = pairs.paired_splits(*(open_splits(each, SHAPE) for each in both(config)), *both(config))["train"]()
    assert len(opened) == 12
    assert len(read) <= 4  # the first of each, to see what it is, and for the note of its bits


def both(config):
    return replace(config, condition=""), pairs.conditions_config(config)


def test_deep_pictures_of_both_have_the_range_that_is_given(tmp_path):
    for name in ("targets", "inputs"):
        (tmp_path / name).mkdir()
        for number in range(4):
            Image.fromarray(np.full((8, 8), 1000 * number, np.uint16)).save(tmp_path / name / f"{number}.png")
    data = DataConfig(
        path=str(tmp_path / "targets"), condition=str(tmp_path / "inputs"), value_range=(0.0, 3000.0), num_held_out=0
    )
    pictures, _ = open_data(data, (2, 8, 8)).training.get(torch.arange(4))
    assert pictures[:, :, 0, 0].tolist() == [[0, 0], [85, 85], [170, 170], [255, 255]]


def test_a_broken_picture_to_draw_from_is_named(tmp_path):
    data = in_folders(tmp_path)
    (tmp_path / "inputs" / "a" / "0.bmp").write_bytes(b"BM")
    with pytest.raises(RinError, match=r"0\.png: the picture that it is drawn from is broken: "):
        open_data(DataConfig(**data), (6, 8, 8))


def test_a_column_may_be_called_as_a_file_is(tmp_path, monkeypatch):
    (tmp_path / "input.png").write_bytes(encoded(0))
    monkeypatch.chdir(tmp_path)
    config = with_whole_paths(DataConfig(**in_a_tar(tmp_path)))
    assert config.condition == "input.png"
    assert len(open_data(config, (6, 8, 8)).training) == 11


def test_pairs_of_picture_files_are_asked_for_by_condition(tmp_path):
    data = in_folders(tmp_path)
    with pytest.raises(RinError, match=r"holds pictures: say where those are .* by --data\.condition"):
        open_data(DataConfig(path=data["path"], degrade="pair"), (4, 8, 8))


def test_a_run_goes_on_when_both_folders_have_moved(tmp_path):
    data = DataConfig(**in_folders(tmp_path))
    rin.train(experiment(data, num_steps=2), tmp_path / "run")
    for name in ("targets", "inputs"):
        (tmp_path / name).rename(tmp_path / f"moved-{name}")
    moved = replace(data, path=str(tmp_path / "moved-targets"), condition=str(tmp_path / "moved-inputs"))
    with pytest.raises(RinError, match="add --data-moved if its set has moved"):
        rin.train(experiment(moved, num_steps=2), tmp_path / "run")
    rin.train(experiment(moved, num_steps=2), tmp_path / "run", data_moved=True)


def test_a_run_is_held_to_the_pictures_that_it_draws_from(tmp_path):
    data = DataConfig(**in_folders(tmp_path))
    rin.train(experiment(data, num_steps=2), tmp_path / "run")
    (tmp_path / "inputs" / "a" / "0.bmp").rename(tmp_path / "inputs" / "a" / "0.png")
    with pytest.raises(RinError, match="no longer what the run"):
        rin.train(experiment(data, num_steps=2), tmp_path / "run")
