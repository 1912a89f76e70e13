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

    NOISE = 0
    TIME = 1
    SELF_COND = 2
    KEEP_LABELS = 3
    KEEP_LABELS_ESTIMATE = 4
    FLIP = 5
    ORDER = 6
    DROPOUT = 7
    LABELS = 8
    START = 9


def philox(counter: Sequence[Word], key: Sequence[Word]) -> tuple[Word, Word, Word, Word]:
    """Philox4x32-10: four words of counter and two of key to four random words, all broadcast together."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        product_0, product_1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (product_1 >> 32 & _WORD) ^ c1 ^ k0,
            product_1 & _WORD,
            (product_0 >> 32 & _WORD) ^ c3 ^ k1,
            product_0 & _WORD,
        )
        k0, k1 = k0 + _KEY_STEPS[0] & _WORD, k1 + _KEY_STEPS[1] & _WORD
    return c0, c1, c2, c3


class Chance:
    """The random numbers of a batch at one step.

    Args:
        seed: one seed for all examples, or one an example (b); 64 bits each.
        step: the step of training or sampling.
        places: the place of each example in the global batch (b).
    """

    def __init__(self, seed: int | Int[Tensor, "b"], step: int, places: Int[Tensor, "b"]) -> None:
        self.step = step
        self.places = places[:, None]
        seeds = torch.as_tensor(seed, dtype=torch.int64, device=places.device).reshape(-1, 1)
        self.key = (seeds & _WORD, seeds >> 32 & _WORD)

    @classmethod
    def fresh(cls, batch: int, device: torch.device) -> "Chance":
        """Numbers that differ from call to call, from PyTorch's own generator."""
        return cls(int(torch.randint(2**62, ())), 0, torch.arange(batch, device=device))

    def at(self, step: int) -> "Chance":
        """The same examples at another step."""
        chance = Chance(0, step, self.places[:, 0])
        chance.key = self.key
        return chance

    def words(self, purpose: Purpose, count: int) -> Int[Tensor, "b words"]:
        """At least `count` random words an example, a multiple of four."""
        blocks = torch.arange(math.ceil(count / 4), device=self.places.device)[None]
        counter = (blocks, self.places, torch.full_like(blocks, self.step), torch.full_like(blocks, purpose))
        return torch.cat(torch.broadcast_tensors(*philox(counter, self.key)), dim=1)

    def uniform(self, purpose: Purpose) -> Float[Tensor, "b"]:
        """One float32 in [0, 1) an example."""
        return (self.words(purpose, 1)[:, 0] >> 8).float() * 2.0**-24

    def true(self, purpose: Purpose, rate: float) -> Bool[Tensor, "b"]:
        """One truth an example, True with probability `rate`."""
        return self.uniform(purpose) < rate

    def normal(self, purpose: Purpose, shape: Sequence[int]) -> Float[Tensor, "b ..."]:
        """Standard normal float32 numbers of `shape` an example (Box and Muller, 1958)."""
        count = math.prod(shape)
        radius_words, angle_words = self.words(purpose, count).chunk(2, dim=1)
        radius = ((radius_words.float() + 0.5) * 2.0**-32).log_().mul_(-2).sqrt_()
        angle = (angle_words >> 8).float().mul_(2.0**-24 * math.tau)
        pairs = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)
        return pairs[:, :count].reshape(-1, *shape)


def check_seed(seed: int) -> None:
    """Refuses what is no seed.

    Raises:
        RinError: it is not from 0 to below 2**31.
    """
    if not 0 <= seed < 2**31:
        raise RinError(f"seed {seed}: take a whole number from 0 to below 2**31")


def permutation(seed: int, epoch: int, count: int) -> Int[Tensor, "count"]:
    """The order of `count` examples in an epoch: a function of (seed, epoch) alone."""
    blocks = torch.arange(count)
    zeros = torch.zeros_like(blocks)
    counter = (blocks, zeros, zeros + epoch, zeros + Purpose.ORDER)
    key = (torch.tensor(seed & _WORD), torch.tensor(seed >> 32 & _WORD))
    high, low, _, _ = philox(counter, key)
    return torch.argsort((high << 31) | (low >> 1), stable=True)


def torch_seed(seed: int, step: int, place: int) -> int:
    """The seed of PyTorch's own generator (dropout, stochastic depth) for the examples from `place` on at a step."""
    chance = Chance(seed, step, torch.tensor([place]))
    high, low = chance.words(Purpose.DROPOUT, 2)[0, :2].tolist()
    return high << 31 | low >> 1


def picture_seeds(seed: int, first: int, count: int) -> Int[Tensor, "count"]:
    """The seeds of pictures `first` to `first + count` of `seed`: picture p of seed s has the seed s * 2**32 + p.

    Raises:
        RinError: the seed is not from 0 to below 2**31.
    """
    check_seed(seed)
    return (seed << 32) + torch.arange(first, first + count)
