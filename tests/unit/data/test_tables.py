"""Parquet files and sets on the Hub."""

import io
import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from rin.core.errors import RinError
from rin.data import DataConfig, open_data

GREY = (1, 8, 8)
IMAGE = {"_type": "Image"}
CATS_AND_DOGS = {"_type": "ClassLabel", "names": ["cat", "dog"]}


def png(level):
    buffer = io.BytesIO()
    Image.new("L", (8, 8), level).save(buffer, "png")
    return buffer.getvalue()


def structs(levels):
    return [{"bytes": png(level), "path": f"{level}.png"} for level in levels]


def write(path, columns, features=None):
    table = pa.table(columns)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def opened(path, **options):
    return open_data(DataConfig(path=str(path), **options), GREY)


def levels(images):
    return images.get(torch.arange(len(images)))[0][:, 0, 0, 0].tolist()


def labels(images):
    return images.get(torch.arange(len(images)))[1].tolist()


def test_the_columns_of_the_hub_are_known_by_their_types(tmp_path):
    columns = {"where": [0, 1, 0], "what": structs([5, 6, 7]), "kind": [1, 0, None], "label": ["a", "b", "c"]}
    features = {
        "where": {"_type": "Value", "dtype": "int64"},
        "what": IMAGE,
        "kind": CATS_AND_DOGS,
        "label": {"_type": "Value", "dtype": "string"},
    }
    write(tmp_path / "set.parquet", columns, features)
    training = opened(tmp_path / "set.parquet").training
    assert levels(training) == [5, 6, 7]
    assert labels(training) == [1, 0, -1]
    assert training.class_names == ("cat", "dog")


@pytest.mark.parametrize("name", ["label", "labels", "fine_label", "class", "cls", "target", "category"])
def test_plain_integers_are_classes_by_their_names(tmp_path, name):
    write(tmp_path / "set.parquet", {"x": structs([5, 6, 7]), name: [3, 0, -9], "other": [7, 7, 7]})
    training = opened(tmp_path / "set.parquet").training
    assert levels(training) == [5, 6, 7]
    assert labels(training) == [3, 0, -1]
    assert training.class_names == ("0", "1", "2", "3")


NAN, NONE = float("nan"), None
CLASSES = {
    "texts": (["dog", "cat", NONE, ""], ("cat", "dog"), [1, 0, -1, -1]),
    "large texts": (pa.array(["b", "a"] * 2, pa.large_string()), ("a", "b"), [1, 0, 1, 0]),
    "numbers in texts": (["10", "2", "10", "2"], ("2", "10"), [1, 0, 1, 0]),
    "truth values": ([True, False, NONE, True], ("false", "true"), [1, 0, -1, 1]),
    "categories": (pa.array(["dog", "cat"] * 2).dictionary_encode(), ("cat", "dog"), [1, 0, 1, 0]),
    "categories of numbers": (pa.array([1, 0] * 2).dictionary_encode(), ("0", "1"), [1, 0, 1, 0]),
    "whole floats": ([0.0, 1.0, NAN, -3.0], ("0", "1"), [0, 1, -1, -1]),
    "small numbers": (pa.array([0, 1, 2, NONE], pa.uint8()), ("0", "1", "2"), [0, 1, 2, -1]),
    "large type": (pa.array([0, 1, 0, 1], pa.uint64()), ("0", "1"), [0, 1, 0, 1]),
    "negative numbers": ([0, -7, 1, NONE], ("0", "1"), [0, -1, 1, -1]),
    "steering texts": (["a\nb", "c", "c", "c"], ("a\\nb", "c"), [0, 1, 1, 1]),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", CLASSES)
def test_columns_of_every_simple_type_are_classes(tmp_path, kind, stream):
    values, names, numbers = CLASSES[kind]
    write(tmp_path / "set.parquet", {"image": structs(range(4)), "label": values})
    found = opened(tmp_path / "set.parquet", num_held_out=0, stream=stream)
    assert found.training.class_names == names
    assert labels(found.training) == numbers
    without = numbers.count(-1)
    assert found.notes == ((f"{without} of 4 examples have no class",) if without else ())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("column", "values", "note"),
    [
        ("label", [0.5, 1.0], "'label' is not used for classes: its numbers are not whole"),
        ("label", [float("inf"), 1.0], "'label' is not used for classes: its numbers are not whole"),
        ("label", [[0, 1], [1]], "not used: label"),
        ("label", [b"cat", b"dog"], "not used: label"),
        ("label", [{"a": 1}, {"a": 2}], "not used: label"),
        ("label", [NONE, NONE], "not used: label"),
        ("target", structs([1, 2]), "not used: target"),
        ("Label", ["a", "b"], "not used: Label"),
        ("coarse_label", [0, 1], "not used: coarse_label"),
        ("class_name", ["a", "b"], "not used: class_name"),
    ],
)
def test_columns_that_are_no_classes_are_named(tmp_path, column, values, note, stream):
    write(tmp_path / "set.parquet", {"image": structs([1, 2]), column: values})
    found = opened(tmp_path / "set.parquet", num_held_out=0, stream=stream)
    assert found.training.class_names == ()
    assert note in "; ".join(found.notes)


@pytest.mark.parametrize("values", [pa.array([2**64 - 1, 1], pa.uint64()), [1e300, 1.0], [2**62, 0]])
def test_numbers_that_are_no_classes_are_refused(tmp_path, values):
    write(tmp_path / "set.parquet", {"image": structs([1, 2]), "label": values})
    with pytest.raises(RinError, match=r"hardly classes: .*--data\.no-labels") as refused:
        opened(tmp_path / "set.parquet")
    assert len(str(refused.value)) < 400


def test_a_column_under_a_usual_name_that_holds_pictures_is_never_read(tmp_path, monkeypatch):
    from rin.data.files import label_columns

    write(tmp_path / "set.parquet", {"input": structs([1]), "target": structs([2])}, {"input": IMAGE, "target": IMAGE})
    monkeypatch.setattr(label_columns, "_no_classes", None)  # which would get its values
    assert levels(opened(tmp_path / "set.parquet", stream=True).training) == [1]


def test_the_only_column_of_bytes_is_the_image(tmp_path):
    write(tmp_path / "set.parquet", {"png": [png(5)], "text": ["five"]})
    training = opened(tmp_path / "set.parquet").training
    assert levels(training) == [5]
    assert labels(training) == [-1]
    assert training.class_names == ()


def test_labels_can_be_left_out(tmp_path):
    write(tmp_path / "set.parquet", {"image": structs([5]), "label": [3]})
    training = opened(tmp_path / "set.parquet", labels=False).training
    assert labels(training) == [-1]
    assert training.class_names == ()


def test_splits_are_told_by_the_names_of_the_files(tmp_path):
    write(tmp_path / "data/train-00000-of-00002.parquet", {"image": structs([0, 1]), "label": [0, 1]})
    write(tmp_path / "data/train-00001-of-00002-0a1b.parquet", {"image": structs([2]), "label": [0]})
    write(tmp_path / "data/test-00000-of-00001.parquet", {"image": structs([10, 11]), "label": [2, 0]})
    write(tmp_path / "my_val.parquet", {"image": structs([20]), "label": [0]})
    data = opened(tmp_path)
    assert levels(data.training) == [0, 1, 2]
    assert sorted(levels(data.held_out)) == [10, 11]
    assert data.training.class_names == data.held_out.class_names == ("0", "1", "2")
    assert levels(opened(tmp_path, held_out_split="validation").held_out) == [20]
    assert len(opened(tmp_path, num_held_out=1).held_out) == 1
    assert len(opened(tmp_path, num_held_out=0).held_out) == 0
    with pytest.raises(RinError, match=r"no split 'extra'.* test, train, validation"):
        opened(tmp_path, split="extra")


def test_a_held_out_part_is_cut_off_where_the_set_has_none(tmp_path):
    write(tmp_path / "pictures.parquet", {"image": structs(range(40))})
    data = opened(tmp_path)
    assert len(data.held_out) == 4
    assert sorted(levels(data.training) + levels(data.held_out)) == list(range(40))


def test_the_split_trained_on_is_never_the_one_held_out(tmp_path):
    write(tmp_path / "test.parquet", {"image": structs(range(20))})
    data = opened(tmp_path, split="test")
    assert sorted(levels(data.training) + levels(data.held_out)) == list(range(20))


def test_splits_with_other_classes_are_refused(tmp_path):
    for split, names in (("train", ["cat", "dog"]), ("test", ["dog", "cat"])):
        features = {"image": IMAGE, "label": {"_type": "ClassLabel", "names": names}}
        write(tmp_path / f"{split}.parquet", {"image": structs([1]), "label": [0]}, features)
    with pytest.raises(RinError, match="other classes"):
        opened(tmp_path)
    assert opened(tmp_path, num_held_out=0).training.class_names == ("cat", "dog")


def test_broken_rows_are_named(tmp_path):
    columns = {"image": [*structs([1]), {"bytes": b"torn", "path": "torn.png"}, {"bytes": None, "path": None}]}
    write(tmp_path / "set.parquet", columns)
    with pytest.raises(RinError, match=r"1 of .*set\.parquet \(torn\.png\): .*--data\.skip-broken$"):
        opened(tmp_path / "set.parquet")
    training = opened(tmp_path / "set.parquet", skip_broken=True).training
    assert (levels(training), training.num_broken) == ([1, 1, 1], 2)
    assert training.broken[1].startswith("2 of ")


def test_rows_may_hold_paths_alone(tmp_path):
    (tmp_path / "a.png").write_bytes(png(9))
    write(tmp_path / "set.parquet", {"image": [{"bytes": None, "path": str(tmp_path / "a.png")}]}, {"image": IMAGE})
    assert levels(opened(tmp_path / "set.parquet").training) == [9]


@pytest.mark.parametrize(
    ("columns", "features", "message"),
    [
        ({"text": ["a"]}, None, "no column of images: its columns are text"),
        ({"a": [b"1"], "b": [b"2"]}, None, "no column of images"),
        ({"image": structs([1]), "label": [10**9]}, None, "hardly classes"),
        ({"image": structs([1]), "label": [2]}, {"image": IMAGE, "label": CATS_AND_DOGS}, "names 2 classes"),
        ({"image": pa.array([], pa.struct({"bytes": pa.binary()}))}, None, "no pictures to train on"),
    ],
)
def test_tables_that_make_no_set_are_refused(tmp_path, columns, features, message):
    write(tmp_path / "set.parquet", columns, features)
    with pytest.raises(RinError, match=message):
        opened(tmp_path / "set.parquet")


def test_a_torn_parquet_file_is_named(tmp_path):
    (tmp_path / "set.parquet").write_bytes(b"PAR1 nothing more")
    with pytest.raises(RinError, match=r"cannot read .*set\.parquet"):
        opened(tmp_path / "set.parquet")


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    write(tmp_path / "train-00000-of-00002.parquet", {"image": structs([1]), "label": [1]})
    write(tmp_path / "train-00001-of-00002.parquet", {"image": structs([1])})
    with pytest.raises(RinError, match="and 1 more"):
        opened(tmp_path)


def test_large_files_are_mapped_and_decoded_on_demand(tmp_path, monkeypatch):
    write(tmp_path / "set/train.parquet", {"image": structs(range(20)), "label": [0, 1] * 10})
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    in_memory = opened(tmp_path / "set")
    assert not (tmp_path / "cache").exists()
    on_demand = opened(tmp_path / "set", memory_gib=0.0)
    assert (tmp_path / "cache").exists()
    for one, other in [(in_memory.training, on_demand.training), (in_memory.held_out, on_demand.held_out)]:
        assert levels(one) == levels(other)
        assert labels(one) == labels(other)
        assert one.class_names == other.class_names


def hub_set(levels):
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    return datasets.Dataset.from_dict(
        {"img": structs(levels), "label": [level % 2 for level in levels]}, features=features
    )


def test_sets_on_the_hub(monkeypatch):
    fetched = []

    def load_dataset(name):
        fetched.append(name)
        return datasets.DatasetDict({"train": hub_set([1, 2, 3]), "test": hub_set([4])})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = opened("owner/name")
    assert fetched == ["owner/name"]
    assert (levels(data.training), labels(data.training)) == ([1, 2, 3], [1, 0, 1])
    assert levels(data.held_out) == [4]
    assert data.training.class_names == ("cat", "dog")


@pytest.mark.parametrize(
    "error",
    [
        datasets.exceptions.DatasetNotFoundError("Dataset 'owner/name' doesn't exist\nand more"),
        ConnectionError("Couldn't reach 'owner/name' on the Hub"),
        ValueError("Config name is missing"),
    ],
)
def test_mishaps_with_the_hub_are_one_line(monkeypatch, error):
    def load_dataset(_):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(
        RinError, match=r"^there is no folder or file owner/name, and fetching it from the Hub failed"
    ) as caught:
        opened("owner/name")
    assert "\n" not in str(caught.value)
    assert str(error).splitlines()[0] in str(caught.value)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("names", [("image", "label", "label"), ("image", "image", "label")])
def test_columns_of_one_name_are_refused(tmp_path, names, stream):
    columns = [[png(1)] if name == "image" else [0] for name in names]
    pq.write_table(pa.table(columns, names=list(names)), tmp_path / "set.parquet")
    with pytest.raises(RinError, match=r"set\.parquet has several columns '(label|image)'"):
        opened(tmp_path / "set.parquet", stream=stream)
