"""The noise level and the condition as tokens of the latents' width."""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rin.core.denoiser import Condition
from rin.core.shapes import PerExample


def sinusoids(x: PerExample, dim: int) -> Float[Tensor, "b dim"]:
    """Sines, then cosines of x at `ceil(dim / 2)` rates from 1 down to almost 1/10,000 (Vaswani et al., 2017)."""
    pairs = torch.arange(dim, device=x.device) // 2 * 2
    rates = 1.0 / torch.pow(10_000.0, pairs.float() / dim)
    angles = x.float()[:, None] * rates
    return torch.cat([angles[:, 0::2].sin(), angles[:, 1::2].cos()], dim=1)


class NoiseLevelEmbedding(nn.Module):
    """gamma as one latent token.

    The original scales gamma by 1000 and normalises the sinusoids by their own mean and population deviation.
    """

    def __init__(self, latent_dim: int, gamma_scale: float) -> None:
        super().__init__()
        self.gamma_scale = gamma_scale
        self.up = nn.Linear(latent_dim // 4, latent_dim)
        self.down = nn.Linear(latent_dim, latent_dim)

    def forward(self, gamma: PerExample) -> Float[Tensor, "b 1 e"]:
        """Embeds gamma in [0, 1]; in float32 whatever the precision around it."""
        # the meta device, where operations are counted, knows no autocast, and an exported network should not have it
        kind = gamma.device.type
        has_autocast = kind != "meta" and torch.is_autocast_enabled(kind)
        with torch.autocast(kind, enabled=False) if has_autocast else nullcontext():
            waves = sinusoids(gamma * self.gamma_scale, self.up.in_features)
            deviation, mean = torch.std_mean(waves, dim=1, correction=0, keepdim=True)
            normalised = ((waves - mean) / deviation).to(self.up.weight.dtype)
            return self.down(F.silu(self.up(normalised)))[:, None]


class ConditionEmbedding(nn.Module):
    """A condition as latent tokens: one for the class, `num_tokens` for an embedding.

    The class is a one-hot vector through a linear layer; a dropped label is the zero vector, so that its token stays
    and holds the layer's bias. Masked-out embedding tokens are treated alike.
    """

    def __init__(self, latent_dim: int, num_classes: int, num_tokens: int, token_dim: int) -> None:
        super().__init__()
        self.num_classes, self.num_tokens, self.token_dim = num_classes, num_tokens, token_dim
        self.label = nn.Linear(num_classes, latent_dim) if num_classes else None
        self.token = nn.Linear(token_dim, latent_dim) if num_tokens else None

    def forward(self, condition: Condition, batch: int) -> Float[Tensor, "b k e"] | None:
        """The condition's tokens; what a model is made for and a condition does not say counts as dropped."""
        tokens: list[Tensor] = []
        if self.label is not None:
            tokens.append(self._label_token(condition, self.label, batch))
        if self.token is not None:
            tokens.append(self._embedding_tokens(condition, self.token, batch))
        return torch.cat(tokens, dim=1) if tokens else None

    def _label_token(self, condition: Condition, layer: nn.Linear, batch: int) -> Float[Tensor, "b 1 e"]:
        labels = condition.labels
        if labels is None:
            labels = torch.full((batch,), -1, device=layer.weight.device)
        one_hot = labels[:, None] == torch.arange(self.num_classes, device=labels.device)
        known = (labels >= -1) & (labels < self.num_classes)
        # where numbers are not at hand (see `rin.nn.checks`), a class that there is not must not pass for none
        return layer(torch.where(known[:, None], one_hot.to(layer.weight.dtype), torch.nan))[:, None]

    def _embedding_tokens(self, condition: Condition, layer: nn.Linear, batch: int) -> Float[Tensor, "b k e"]:
        embeddings = condition.embeddings
        if embeddings is None:
            embeddings = torch.zeros(batch, self.num_tokens, self.token_dim, device=layer.weight.device)
        if condition.embedding_mask is not None:
            embeddings = torch.where(
                condition.embedding_mask[..., None], embeddings, 0
            )  # whatever is masked out, NaN too
        return layer(embeddings.to(layer.weight.dtype))


class LatentSelfConditioning(nn.Module):
    """Latents that start where those of the step before ended (paper section 3.2).

    Z = Z_init + LN(Z' + MLP(LN(Z'))), with the outer norm's scale and shift starting at zero, so that it is a no-op
    before training.
    """

    def __init__(self, mlp: nn.Module, latent_dim: int, eps: float) -> None:
        super().__init__()
        self.mlp = mlp
        self.norm = nn.LayerNorm(latent_dim, eps=eps)

    def forward(self, latents_prev: Float[Tensor, "b m e"]) -> Float[Tensor, "b m e"]:
        """What is added to Z_init; zeros as `latents_prev` go the same way, never around it."""
        return self.norm(self.mlp(latents_prev))
