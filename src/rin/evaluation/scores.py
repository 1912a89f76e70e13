"""What a classifier says of samples: the Inception Score, and how often it sees the class that was asked for."""

import torch
from jaxtyping import Float
from torch import Tensor

from rin.core.errors import RinError
from rin.evaluation.kernel import Estimate

_PARTS = 10
"""Parts that the score is averaged over, as in published figures."""


class ClassifierScores:
    """Scores of samples that come batch by batch; memory does not grow with their number.

    Args:
        num_classes: how many logits a sample has.
    """

    def __init__(self, num_classes: int) -> None:
        self.count, self.right, self.requested = 0, 0, 0
        self._counts = torch.zeros(_PARTS, dtype=torch.float64)
        self._probabilities = torch.zeros(_PARTS, num_classes, dtype=torch.float64)
        self._negative_entropy = torch.zeros(_PARTS, dtype=torch.float64)

    def update(self, logits: Float[Tensor, "b classes"], labels: list[int] | None) -> None:
        """Adds some samples: sample n of all belongs to part n modulo 10, whatever the batches.

        Args:
            logits: of each.
            labels: the class that was asked for, if there was one.
        """
        logits = logits.double()
        parts = (torch.arange(len(logits)) + self.count) % _PARTS
        probabilities = logits.softmax(1)
        self._counts.index_add_(0, parts, torch.ones(len(logits), dtype=torch.float64))
        self._probabilities.index_add_(0, parts, probabilities)
        self._negative_entropy.index_add_(0, parts, (probabilities * logits.log_softmax(1)).sum(1))
        self.count += len(logits)
        if labels is not None:
            self.requested += len(labels)
            self.right += int((logits.argmax(1) == torch.tensor(labels)).sum())

    def inception_score(self) -> Estimate:
        """Exp of the mean divergence of p(class | sample) from p(class), over ten parts (Salimans et al., 2016).

        Raises:
            RinError: there are fewer than ten samples.
        """
        if self.count < _PARTS:
            raise RinError(f"an Inception Score of {self.count} samples: give {_PARTS} or more")
        marginal = self._probabilities / self._counts[:, None]
        cross = torch.xlogy(marginal, marginal).sum(1)
        scores = (self._negative_entropy / self._counts - cross).exp()
        return Estimate(float(scores.mean()), float(scores.std(correction=0)))

    def class_accuracy(self) -> float:
        """The share of the samples that are seen as the class that was asked for."""
        return self.right / self.requested
