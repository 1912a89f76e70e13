"""Chance, conditions and errors."""

import itertools

import pytest
import torch

from rin import Condition, RinError
from rin.core.denoiser import check_labels
from rin.core.errors import unknown
from rin.core.seeds import Chance, Purpose, permutation, philox, picture_seeds, torch_seed

PI = ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0))
KNOWN_ANSWERS = [
    ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (*PI, (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]


def chance(seed=3, step=5, count=20_000):
    return Chance(seed, step, torch.arange(count))


def correlation(first, second):
    return torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1].abs().item()


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_philox_gives_the_known_answers_of_random123(counter, key, words):
    found = philox([torch.tensor([word]) for word in counter], [torch.tensor([word]) for word in key])
    assert tuple(word.item() for word in found) == words


def test_normal_numbers_have_the_moments_of_the_normal_distribution():
    numbers = chance().normal(Purpose.NOISE, (3, 3)).double()
    assert numbers.mean().abs() < 0.01
    assert (numbers.std() - 1).abs() < 0.01
    assert (numbers**3).mean().abs() < 0.03
    assert ((numbers**4).mean() - 3).abs() < 0.08
    assert numbers.abs().max() > 4


def test_uniform_numbers_fill_their_interval_evenly():
    numbers = chance().uniform(Purpose.TIME)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert (torch.histc(numbers, 10, 0, 1) / len(numbers) - 0.1).abs().max() < 0.01


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_truths_come_at_their_rate(rate):
    share = chance().true(Purpose.SELF_COND, rate).float().mean().item()
    assert share == pytest.approx(rate, abs=0.0 if rate in (0.0, 1.0) else 0.01)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 9])
def test_the_numbers_of_one_example_are_uncorrelated(count):
    numbers = chance().normal(Purpose.NOISE, (count,))
    assert numbers.shape == (20_000, count)
    for one, other in itertools.combinations(range(count), 2):
        assert correlation(numbers[:, one], numbers[:, other]) < 0.04
        assert correlation(numbers[:, one] ** 2, numbers[:, other] ** 2) < 0.04


@pytest.mark.parametrize(
    "other",
    [
        lambda: chance(seed=4).normal(Purpose.NOISE, (4,)),
        lambda: chance(seed=3 + 2**32).normal(Purpose.NOISE, (4,)),
        lambda: chance(step=6).normal(Purpose.NOISE, (4,)),
        lambda: chance().normal(Purpose.START, (4,)),
        lambda: chance().normal(Purpose.NOISE, (4,)).roll(1, dims=0),
    ],
    ids=["seed", "high half of the seed", "step", "purpose", "place"],
)
def test_other_seeds_steps_purposes_and_places_have_other_numbers(other):
    assert correlation(chance().normal(Purpose.NOISE, (4,)), other()) < 0.02


@pytest.mark.parametrize("places", [slice(0, 1), slice(3, 7), slice(9, 10), [8, 2, 2]], ids=str)
def test_the_numbers_of_a_place_do_not_depend_on_the_batch_around_it(places):
    everywhere = torch.arange(10)
    whole, part = Chance(7, 2, everywhere), Chance(7, 2, everywhere[places])
    for purpose in Purpose:
        assert torch.equal(part.normal(purpose, (3, 5)), whole.normal(purpose, (3, 5))[places])
        assert torch.equal(part.uniform(purpose), whole.uniform(purpose)[places])


def test_a_seed_an_example_gives_each_its_own_seeds_numbers():
    seeds = torch.tensor([5, 2**40, 7])
    together = Chance(seeds, 1, torch.zeros(3, dtype=torch.int64)).normal(Purpose.NOISE, (6,))
    for seed, row in zip(seeds.tolist(), together, strict=True):
        assert torch.equal(Chance(seed, 1, torch.tensor([0])).normal(Purpose.NOISE, (6,))[0], row)


def test_another_step_of_the_same_examples_is_what_it_would_be_from_the_start():
    again = chance(step=5).at(8)
    assert torch.equal(again.uniform(Purpose.TIME), chance(step=8).uniform(Purpose.TIME))


def test_fresh_numbers_differ_from_call_to_call_and_follow_the_generator_of_pytorch():
    def draw():
        return Chance.fresh(2, torch.device("cpu")).normal(Purpose.NOISE, (4,))

    torch.manual_seed(0)
    first, second = draw(), draw()
    torch.manual_seed(0)
    assert torch.equal(draw(), first)
    assert not torch.equal(first, second)


def test_purposes_keep_their_numbers():
    names = "NOISE TIME SELF_COND KEEP_LABELS KEEP_LABELS_ESTIMATE FLIP ORDER DROPOUT LABELS START"
    assert [purpose.name for purpose in Purpose][:10] == names.split()
    assert [int(purpose) for purpose in Purpose] == [*range(14), *range(15, 21)]


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_an_order_of_examples_is_a_permutation(count):
    assert sorted(permutation(3, 1, count).tolist()) == list(range(count))


def test_an_order_of_examples_is_a_function_of_seed_and_epoch():
    orders = {(seed, epoch): permutation(seed, epoch, 50).tolist() for seed in (0, 1, 2**33) for epoch in (0, 1)}
    assert all(permutation(seed, epoch, 50).tolist() == order for (seed, epoch), order in orders.items())
    assert len({tuple(order) for order in orders.values()}) == len(orders)
    assert list(range(50)) not in orders.values()


def test_pytorchs_seed_depends_on_seed_step_and_place_and_fits_63_bits():
    seeds = [torch_seed(*arguments) for arguments in itertools.product((0, 1), (0, 1), (0, 64))]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert torch_seed(1, 0, 64) == seeds[5]


def test_the_seeds_of_pictures_number_them_within_their_seed():
    assert picture_seeds(3, 5, 3).tolist() == [3 * 2**32 + place for place in (5, 6, 7)]
    assert picture_seeds(0, 0, 2).tolist() == [0, 1]
    for seed in (-1, 2**31):
        with pytest.raises(RinError, match=str(seed)):
            picture_seeds(seed, 0, 1)


def full_condition():
    return Condition(
        labels=torch.tensor([2, 0, 1]),
        embeddings=torch.randn(3, 2, 4),
        embedding_mask=torch.tensor([[True, False], [True, True], [True, True]]),
        context=torch.randn(3, 4, 2, 5, 5),
    )


def test_dropping_takes_labels_and_embeddings_and_leaves_the_context():
    told = full_condition()
    kept = told.keep(torch.tensor([True, False, True]))
    assert kept.labels.tolist() == [2, -1, 1]
    assert kept.embedding_mask.tolist() == [[True, False], [False, False], [True, True]]
    assert kept.embeddings is told.embeddings
    assert kept.context is told.context
    assert told.labels.tolist() == [2, 0, 1]


def test_dropping_embeddings_without_a_mask_makes_one():
    kept = Condition(embeddings=torch.ones(2, 3, 4)).keep(torch.tensor([True, False]))
    assert kept.embedding_mask.tolist() == [[True] * 3, [False] * 3]
    assert kept.labels is None


def test_the_null_condition_says_nothing_but_the_context():
    told = full_condition()
    null = told.null()
    assert null.labels.tolist() == [-1, -1, -1]
    assert not null.embedding_mask.any()
    assert null.context is told.context
    assert Condition(embeddings=torch.ones(1, 2, 3)).null().embedding_mask.tolist() == [[False, False]]
    only_context = Condition(context=told.context)
    assert only_context.null() is only_context


@pytest.mark.parametrize("index", [slice(1, 3), torch.tensor([2, 0])], ids=["slice", "places"])
def test_rows_of_a_condition_are_rows_of_its_parts(index):
    told = full_condition()
    some = told.rows(index)
    for name in ("labels", "embeddings", "embedding_mask", "context"):
        assert torch.equal(getattr(some, name), getattr(told, name)[index])
    assert Condition().rows(index) == Condition()


def test_a_condition_moves_to_a_device_with_all_its_parts():
    there = full_condition().to("meta")
    for name in ("labels", "embeddings", "embedding_mask", "context"):
        assert getattr(there, name).device.type == "meta"
    assert Condition().to("meta") == Condition()


def test_an_unknown_name_is_answered_with_the_nearest_or_with_all():
    assert str(unknown("preset", "cifr10", ["digits", "cifar10"])) == "unknown preset 'cifr10': did you mean 'cifar10'?"
    assert str(unknown("fruit", "zzz", ["pear", "apple"])) == "unknown fruit 'zzz': there are: apple, pear"
    assert isinstance(unknown("fruit", "zzz", ["pear"]), RinError)


@pytest.mark.parametrize(
    ("labels", "num_classes", "words"),
    [([0, 5], 5, "class 5 is out of range: .* 0 to 4"), ([-1], 5, "class -1"), ([0], 0, "without classes")],
)
def test_classes_that_a_model_does_not_have_are_refused(labels, num_classes, words):
    with pytest.raises(RinError, match=words):
        check_labels(labels, num_classes)


def test_classes_that_a_model_has_pass():
    check_labels([0, 4], 5)
    check_labels([], 0)
