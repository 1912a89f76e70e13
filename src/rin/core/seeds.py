"""Random numbers as functions of (seed, step, place in the global batch, purpose): no state, no order, no rank.

The generator is Philox4x32 with ten rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011):
the seed is its key; the block within an example, the example's place, the step and the purpose are its counter.
"""

import enum
import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rin.core.errors import RinError

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_WORD = 0xFFFFFFFF
_ROUNDS = 10

Word = Int[Tensor, "..."]
"""32 random bits, kept in an int64."""


class Purpose(enum.IntEnum):
    """What a random number is for. The values are part of every run: append, never renumber."""

    NOISE = 0  # of sampling; see `noise_purpose`
    TIME = 1
    SELF_COND = 2
    KEEP_LABELS = 3
    KEEP_LABELS_ESTIMATE = 4
    FLIP = 5
    ORDER = 6
    DROPOUT = 7
    LABELS = 8
    START = 9
    SCENE = 10
    OCCLUSION = 11
    TRAINING_NOISE = 12
    HELD_OUT_NOISE = 13
    NUM_LATENTS = 15  # 14 was an option's that is no more
    KNOWN_NOISE = 16
    MASK = 17
    HELD_OUT_MASK = 18
    DEQUANTISATION = 19
    PROBES = 20


NOISE_VERSION = 2
"""Of runs that begin now: their training, their held-out losses and sampling have noise apart from one another."""


def noise_purpose(purpose: Purpose, version: int) -> Purpose:
    """What the noise of a run's training or held-out losses is drawn for.

    Args:
        purpose: TRAINING_NOISE or HELD_OUT_NOISE.
        version: of the run's noise. In version 1 all of it has sampling's purpose, so that training at place 0 with
            seed 0 and held-out losses have noise that samples of seed 0 have, too.
    """
    return Purpose.NOISE if version == 1 else purpose


def philox(counter: Sequence[Word], key: Sequence[Word]) -> tuple[Word, Word, Word, Word]:
    """Philox4x32-10: four words of counter and two of key to four random words, all broadcast together."""
    k0, k1 = key
    c0, c1, c2, c3, _, _ = torch.broadcast_tensors(*counter, k0, k1)
    for _ in range(_ROUNDS):
        high_0, low_0 = _product(c0, _MULTIPLIERS[0])
        high_1, low_1 = _product(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = (
            high_1.bitwise_xor_(c1).bitwise_xor_(k0), low_1, high_0.bitwise_xor_(c3).bitwise_xor_(k1), low_0
        )  # fmt: skip
        k0, k1 = k0 + _KEY_STEPS[0] & _WORD, k1 + _KEY_STEPS[1] & _WORD
    return c0, c1, c2, c3


def _product(word: Word, multiplier: int) -> tuple[Word, Word]:
    """The high and the low word of a product of 64 bits."""
    if torch.compiler.is_compiling():
        # by halves: an int64 that overflows is undefined in the C++ that it compiles to, and was wrong
        by_high, by_low = word * (multiplier >> 16), word * (multiplier & 0xFFFF)
        return by_high + (by_low >> 16) >> 16, ((by_high & 0xFFFF) << 16) + by_low & _WORD
    product = word * multiplier
    return (product >> 32).bitwise_and_(_WORD), product.bitwise_and_(_WORD)


class Chance:
    """The random numbers of a batch at one step.

    Args:
        seed: one seed for all examples, or one an example (b); 64 bits each.
        step: the step of training or sampling; a tensor is not compiled in as a constant.
        places: the place of each example in the global batch (b).
    """

    def __init__(
        self,
        seed: int | Int[Tensor, ""] | Int[Tensor, " b"],
        step: int | Int[Tensor, ""],
        places: Int[Tensor, " b"],
    ) -> None:
        self.step = step
        self.places = places[:, None]
        seeds = torch.as_tensor(seed, dtype=torch.int64, device=places.device).reshape(-1, 1)
        self.key = (seeds & _WORD, seeds >> 32 & _WORD)

    @classmethod
    def fresh(cls, batch: int, device: torch.device) -> "Chance":
        """Numbers that differ from call to call, from PyTorch's own generator."""
        return cls(int(torch.randint(2**62, ())), 0, torch.arange(batch, device=device))

    def at(self, step: int | Int[Tensor, ""]) -> "Chance":
        """The same examples at another step."""
        chance = Chance(0, step, self.places[:, 0])
        chance.key = self.key
        return chance

    def words(self, purpose: Purpose, count: int) -> Int[Tensor, "b words"]:
        """At least `count` random words an example, a multiple of four."""
        return torch.cat(self._four_words(purpose, count), dim=1)

    def uniform(self, purpose: Purpose) -> Float[Tensor, " b"]:
        """One float32 in [0, 1) an example."""
        return (self.words(purpose, 1)[:, 0] >> 8).float() * 2.0**-24

    def true(self, purpose: Purpose, rate: float) -> Bool[Tensor, " b"]:
        """One truth an example, True with probability `rate`."""
        return self.uniform(purpose) < rate

    def normal(self, purpose: Purpose, shape: Sequence[int]) -> Float[Tensor, "b ..."]:
        """Standard normal float32 numbers of `shape` an example (Box and Muller, 1958)."""
        count = math.prod(shape)
        numbers = torch.cat(_box_muller(*self._four_words(purpose, count)), dim=1)
        return numbers[:, :count].reshape(-1, *shape)

    def _four_words(self, purpose: Purpose, count: int) -> tuple[Word, Word, Word, Word]:
        """At least `count` random words an example, as the four words of each block (b blocks)."""
        blocks = _count_up(math.ceil(count / 4), self.places)[None]
        step = torch.as_tensor(self.step, device=blocks.device)
        return philox((blocks, self.places, step.expand_as(blocks), torch.full_like(blocks, purpose)), self.key)


def _count_up(count: int, like: Tensor) -> Int[Tensor, " count"]:
    """0, 1 ... count - 1."""
    return _hidden_count_up(count, like) if torch.compiler.is_compiling() else torch.arange(count, device=like.device)


@torch.library.custom_op("rin::count_up", mutates_args=())
def _hidden_count_up(count: int, like: Tensor) -> Tensor:
    """The same where torch.compile does not look: an `arange` that it knows it multiplies in 32 bits, and is wrong.

    See PyTorch's issues 175966 and 183901.
    """
    return torch.arange(count, device=like.device)


@_hidden_count_up.register_fake
def _(count: int, like: Tensor) -> Tensor:
    return like.new_empty(count)


def _box_muller(w0: Word, w1: Word, w2: Word, w3: Word) -> list[Float[Tensor, "b blocks"]]:
    """Four normal numbers from four words: the first two give radii, the others angles."""
    radii = [((word.float() + 0.5) * 2.0**-32).log_().mul_(-2).sqrt_() for word in (w0, w1)]
    angles = [(word >> 8).float().mul_(2.0**-24 * math.tau) for word in (w2, w3)]
    pairs = list(zip(radii, angles, strict=True))
    return [radius * angle.cos() for radius, angle in pairs] + [radius * angle.sin() for radius, angle in pairs]


def check_seed(seed: int) -> None:
    """Refuses what is no seed.

    Raises:
        RinError: it is not from 0 to below 2**31.
    """
    if not 0 <= seed < 2**31:
        raise RinError(f"seed {seed}: take a whole number from 0 to below 2**31")


def permutation(seed: int, epoch: int, count: int, group: int = 0) -> Int[Tensor, " count"]:
    """The order of `count` examples in an epoch: a function of (seed, epoch, group) alone.

    Args:
        seed: the seed of the run.
        epoch: how many times the set was seen before.
        count: examples to put into an order.
        group: from 1 on, the part of the set that they are, where each part has an order of its own; 0 is no part.
    """
    blocks = torch.arange(count)
    zeros = torch.zeros_like(blocks)
    counter = (blocks, zeros + group, zeros + epoch, zeros + Purpose.ORDER)
    key = (torch.tensor(seed & _WORD), torch.tensor(seed >> 32 & _WORD))
    high, low, _, _ = philox(counter, key)
    return torch.argsort((high << 31) | (low >> 1), stable=True)


def choice(seed: int, step: int, count: int, purpose: Purpose) -> int:
    """A number from 0 to below `count` for a whole step: the same for all examples, in all processes."""
    return int(Chance(seed, step, torch.zeros(1, dtype=torch.int64)).uniform(purpose) * count)


def torch_seed(seed: int, step: int, place: int) -> int:
    """The seed of PyTorch's own generator (dropout, stochastic depth) for the examples from `place` on at a step."""
    chance = Chance(seed, step, torch.tensor([place]))
    high, low = chance.words(Purpose.DROPOUT, 2)[0, :2].tolist()
    return high << 31 | low >> 1


def picture_seeds(seed: int, first: int, count: int) -> Int[Tensor, " count"]:
    """The seeds of pictures `first` to `first + count` of `seed`: picture p of seed s has the seed s * 2**32 + p.

    Raises:
        RinError: the seed is not from 0 to below 2**31, or there are no such pictures of it.
    """
    check_seed(seed)
    if not 0 <= first <= 2**32 - count:  # beyond, they would be those of the next seed
        raise RinError(f"picture {first} of a seed and the {count - 1} after it: take them from 0 to below 2**32")
    return (seed << 32) + torch.arange(first, first + count)
