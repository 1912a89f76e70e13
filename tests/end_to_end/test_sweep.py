"""`rin sweep`: every way once, gone on with, in a table and a plot."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from rin import Diffusion, DiffusionConfig, RinError
from rin import load as rin_load
from rin.cli import main
from rin.costs.operations import cost
from rin.diffusion.samplers import EVERYWHERE, evaluations
from rin.evaluation.images import sampling_protocol
from rin.evaluation.sweeping import Sweep, Way, best_within, measured_rows, own_way, ways
from rin.model_files import weights_digest
from rin.sharing.measured import what_was_measured
from tests.end_to_end.commands import TINY, assert_one_line, rin
from tests.end_to_end.test_evaluate import network, run  # noqa: F401
from tests.unit.models import moved, small, trained


def sweep(*arguments):
    with pytest.raises(SystemExit) as left:
        main(["sweep", *map(str, arguments)])
    return left.value.code


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_way_is_measured_once_and_what_is_known_is_not_measured_again(run, network, tmp_path, capsys):  # noqa: F811
    out, plot = tmp_path / "sweep.jsonl", tmp_path / "sweep.png"
    options = (run, "--features", network, "--num", "12", "--out", out, "--num-steps", "2", "3", "--samplers", "ddim")
    assert sweep(*options) == 0
    assert [(row["way"]["num_steps"], row["evaluations"]) for row in rows(out)] == [(2, 2), (3, 3)]
    before = out.read_text()
    assert sweep(*options, "heun", "--guidances", "0", "1", "--guidance-intervals", "all", "0.5,3", "--plot", plot) == 0
    assert out.read_text().startswith(before)
    found = rows(out)
    assert len(found) == 2 * 2 * 3  # samplers, steps; no guidance, and guidance for each of two intervals
    assert len({json.dumps(row["way"]) for row in found}) == len(found)
    with Image.open(plot) as picture:
        assert picture.size[0] > 300
    lines = capsys.readouterr().out.splitlines()
    table = lines[-1 - len(found) :]
    assert "distance" in table[0]
    distances = [float(line.split()[-4 if "as asked" in table[0] else -3]) for line in table[1:]]
    assert distances == sorted(distances)
    assert sweep(*options) == 0
    assert len(rows(out)) == len(found)


def test_a_measure_is_that_of_rin_evaluate(run, network, tmp_path):  # noqa: F811
    out, one = tmp_path / "sweep.jsonl", tmp_path / "one.json"
    assert (
        sweep(run, "--features", network, "--num", "12", "--out", out, "--steps", "3", "--average-decays", "0.5") == 0
    )
    way = ("--steps", "3", "--average-decays", "0.5", "--num", "12", "--out", one)
    with pytest.raises(SystemExit):
        main(["evaluate", str(run), "--features", str(network), *map(str, way)])
    (row,), measured = rows(out), json.loads(one.read_text())
    assert row["frechet_distance"] == measured["frechet_distance"]
    assert row["protocol"]["reference"] == measured["protocol"]["reference"]


def test_of_other_numbers_or_weights_nothing_is_known(run, network, tmp_path):  # noqa: F811
    out = tmp_path / "sweep.jsonl"
    options = (run, "--features", network, "--out", out, "--steps", "2")
    for more in (("--num", "12"), ("--num", "13"), ("--num", "12", "--average-decays", "0.5"), ("--num", "12")):
        assert sweep(*options, *more) == 0
    assert len(rows(out)) == 3


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--guidance-intervals", "3"), "write two numbers, as in 0.3,3, or all"),
        (("--guidance-intervals", "3,1", "--guidances", "1"), "guidance_interval"),
        (("--guidance-intervals", "all", "20,30", "--guidances", "1"), "guides none of the"),
        (("--guidance-intervals", "0.3,3"), "--guidance-intervals does nothing without guidance: give --guidances too"),
        (("--num-guide-latents", "4"), "--num-guide-latents does nothing without guidance"),
        (("--schedules", "cosin"), "did you mean 'cosine'"),
        (("--num-steps", "0"), "take a whole number"),
        (("--samplers", "ddmp"), "--samplers"),
        (("--num", "1"), "2 pictures or more"),
        (("--average-decays", "0.7"), "no average of decay 0.7"),
        (("--out", "{folder}/other.txt"), "is no file of a sweep"),
        (("--plot", "{folder}"), "it is a folder"),
        (("--plot", "{folder}/plot.txt"), "ends in .png"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_mistakes_are_one_line(run, network, tmp_path, more, words):  # noqa: F811
    (tmp_path / "other.txt").write_text("something else\n")
    more = [word.replace("{folder}", str(tmp_path)) for word in more]
    defaults = [] if "--out" in more else ["--out", tmp_path / "sweep.jsonl"]
    defaults += [] if "--num" in more else ["--num", "12"]
    result = rin("sweep", run, "--features", network, *defaults, *more)
    assert_one_line(result, words)
    assert (tmp_path / "other.txt").read_text() == "something else\n"


@pytest.mark.parametrize(
    ("sampler", "guidance", "interval", "expected"),
    [("ddim", 0.0, None, 10), ("ddim", 1.0, None, 20), ("heun", 0.0, None, 19), ("heun", 1.0, None, 38),
     ("dpmpp-2m", 1.0, (0.0, 1e9), 20), ("ddim", 0.0, (1e8, 1e9), 10), ("ddim", 1.0, (70.0, 90.0), 11)],
)  # fmt: skip
def test_evaluations_are_counted(sampler, guidance, interval, expected):
    assert evaluations(sampler, "karras", 10, guidance, interval) == [None] * expected


def test_an_interval_without_guidance_makes_no_second_way():
    found = ways(["ddim"], [10], ["cosine"], [0.0, 1.0], [None, (0.3, 3.0)], [None], [None], [None])
    assert found == [
        Way(sampler="ddim", num_steps=10, schedule="cosine"),
        Way(sampler="ddim", num_steps=10, schedule="cosine", guidance=1.0),
        Way(sampler="ddim", num_steps=10, schedule="cosine", guidance=1.0, guidance_interval=(0.3, 3.0)),
    ]


@pytest.fixture(scope="module")
def elastic(tmp_path_factory):
    """A run whose latents are 4 to 16."""
    folder = tmp_path_factory.mktemp("runs") / "elastic"
    changes = ("--model.num-latents", "16", "--model.num-latents-min", "4", "--training.num-steps", "2")
    result = rin("train", "digits", *TINY, *changes, "--out", folder)
    assert result.returncode == 0, result.stderr
    return folder


def drawn(folder, out, *arguments):
    """`rin sample` in this process: the pictures, or its status if it refuses."""
    with pytest.raises(SystemExit) as left:
        main(["sample", str(folder), "--num", "2", "--out", str(out), *map(str, arguments)])
    return left.value.code or np.load(out)["images"]


def test_a_budget_chooses_the_best_measured_way_that_costs_no_more(elastic, network, tmp_path, caplog):  # noqa: F811
    file = elastic / "sweep.jsonl"
    ways = ("--num-latents", "4", "0.5:4,1:16", "16", "--steps", "3", "5", "--num", "12")
    assert sweep(elastic, "--features", network, *ways) == 0
    found, config = rows(file), rin_load(elastic).config
    of_four, of_all = (cost(config, count).operations for count in (4, 16))
    counted = {(row["way"]["num_latents"], row["way"]["num_steps"]): row["operations"] for row in found}
    assert counted["4", 5] == 5 * of_four
    assert counted["0.5:4,1:16", 5] == 3 * of_all + 2 * of_four  # t = 1, 0.8 and 0.6; 0.4 and 0.2
    for row, distance in zip(found, (5.0, 4.0, 3.0, 2.0, 1.0, 0.5), strict=True):
        row["frechet_distance"] = distance
    file.write_text("".join(json.dumps(row) + "\n" for row in found))

    own = 4 * of_all  # the run's own steps
    fitting = [row for row in found if row["operations"] <= 0.7 * own]
    best = min(fitting, key=lambda row: row["frechet_distance"])
    assert len(fitting) not in (1, len(found))
    with caplog.at_level("INFO", logger="rin"):
        pictures = drawn(elastic, tmp_path / "budget.npz", "--budget", "0.7")
    assert f"{best['words']}, {best['way']['num_steps']} steps" in caplog.text
    way = ("--steps", best["way"]["num_steps"], "--num-latents", best["way"]["num_latents"])
    assert np.array_equal(pictures, drawn(elastic, tmp_path / "way.npz", *way))
    assert not np.array_equal(pictures, drawn(elastic, tmp_path / "own.npz"))


def test_what_was_measured_with_other_latents_of_guidance_is_another_way(elastic, tmp_path):
    trained, file = rin_load(elastic), tmp_path / "sweep.jsonl"
    samples = {"num": 12, "weights_sha256": weights_digest(trained.model)}
    for distance, more in ((1.0, {}), (2.0, {"guidance_latents": "own"})):
        way = {"guidance": 1.0, "distance": distance}
        row = {"way": way, "frechet_distance": distance, "protocol": {"samples": samples | more}}
        with file.open("a") as lines:
            lines.write(json.dumps(row) + "\n")
    for latents, distance in (("shared", 1.0), ("own", 2.0)):
        trained.diffusion = Diffusion(replace(trained.diffusion.config, guidance_latents=latents))
        assert [row["frechet_distance"] for row in measured_rows(file, trained, 1.0)] == [distance]
    assert measured_rows(file, trained, 0.0) == []


def test_a_budget_names_strengths_of_guidance_that_it_would_take(elastic, tmp_path):
    trained, file = rin_load(elastic), tmp_path / "sweep.jsonl"
    digest = {"weights_sha256": weights_digest(trained.model)}
    for guidance, samples in ((1.0, {"num": 12}), (2.0, {"num": 4}), (3.0, {"num": 12, "guidance_latents": "own"})):
        row = {"way": {"guidance": guidance}, "frechet_distance": 1.0, "protocol": {"samples": digest | samples}}
        with file.open("a") as lines:
            lines.write(json.dumps(row) + "\n")
    trained.diffusion = Diffusion(replace(trained.diffusion.config, guidance_latents="own"))
    with pytest.raises(RinError, match=r"there are none \(measured: --guidance 3\); measure more"):
        best_within(file, trained, 0.5, 0.0)


def test_a_budget_is_a_share_of_what_the_model_costs_as_it_is_guided_itself(elastic, tmp_path):
    trained, file = rin_load(elastic), tmp_path / "sweep.jsonl"
    own = replace(trained.diffusion.config, label_drop_rate=0.1, guidance=1.0, guidance_interval=(0.5, 1.5))
    trained.diffusion = Diffusion(own)
    way = own_way(trained, 1.0, own.guidance_interval)
    assert way.operations(trained.config) < own_way(trained, 1.0).operations(trained.config)
    samples = {"num": 12, "weights_sha256": weights_digest(trained.model), "guidance_latents": own.guidance_latents}
    Sweep(file).add(way, trained.config, {"samples": samples}, {"frechet_distance": 1.0})
    assert best_within(file, trained, 1.0, None) == way
    with pytest.raises(RinError, match="the cheapest takes 1;"):
        best_within(file, trained, 0.99, None)


@pytest.mark.parametrize(
    ("options", "guidance", "interval"),
    [({}, 2.0, [0.3, 3.0]), ({"guidance": 0.0}, 0.0, None), ({"guidance": 1.0}, 1.0, [0.3, 3.0]),
     ({"guidance_interval": EVERYWHERE}, 2.0, None),
     (Way(sampler="ddim", num_steps=2, schedule="cosine", guidance=1.0).options, 1.0, None)],
    ids=repr,
)  # fmt: skip
def test_results_tell_how_samples_were_guided_also_if_the_model_chose(options, guidance, interval):
    own = DiffusionConfig(label_drop_rate=0.1, guidance=2.0, guidance_interval=(0.3, 3.0))
    told = sampling_protocol(trained(moved(small()), own), options)
    assert (told["guidance"], told.get("guidance_interval")) == (guidance, interval)


def test_a_card_lists_guided_ways_of_the_latents_that_were_measured_last_alone(tmp_path):
    def row(distance, **samples):
        samples = {"num": 12, "weights_sha256": "0" * 64, **samples}
        protocol = {"samples": samples, "reference": {"part": "train"}, "features": {"sha256": "1" * 64}}
        return {"words": "ddim", "way": {"num_steps": 2}, "frechet_distance": distance, "protocol": protocol}

    guided, own = {"guidance": 1.0}, {"guidance": 1.0, "guidance_latents": "own"}
    for rows, listed in (
        ([row(1.5, **guided), row(2.5, **own), row(3.5)], ("2.5", "3.5")),
        ([row(2.5, **own), row(1.5, **guided)], ("1.5",)),
        ([row(3.5)], ("3.5",)),
        ([row(1.5, **guided), row(2.5, **own, num=4)], ("1.5",)),
    ):
        (tmp_path / "sweep.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in rows))
        text = what_was_measured(tmp_path, "0" * 64, "a/b")
        assert [line.split()[-2] for line in text.splitlines() if line.startswith("| ddim")] == [*listed]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--budget", "0.01"), "the cheapest takes"),
        (("--budget", "0"), "take a share of the operations"),
        (("--budget", "0.5", "--guidance", "1"), "there are none (measured: --guidance 0)"),
        (("--budget", "0.5", "--num-latents", "8"), "--budget chooses --num-latents"),
        (("--num-latents", "3"), "works with 4 to 16"),
        (("--num-latents", "0.5:8"), "rise to 1"),
        (("--num-latents", "many"), "write a number, as in 32"),
        (("--num-guide-latents", "4"), "does nothing without guidance"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_mistakes_with_latents_and_budgets_are_one_line(elastic, network, tmp_path, capsys, more, words):  # noqa: F811
    sweep(elastic, "--features", network, "--num-latents", "4", "--steps", "3", "--num", "12")
    assert sweep(elastic, "--features", network, "--num-latents", "4", "3", "--steps", "3", "--num", "12") == 2
    capsys.readouterr()
    assert drawn(elastic, tmp_path / "out.npz", *more) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.strip().splitlines()) == 1
