"""What cannot be trained on the data that there are, or not be resumed."""

from torch import nn

from rin.core.errors import RinError
from rin.core.kind import Kind


def check_keeps_all(model: nn.Module) -> None:
    """Refuses networks of which a checkpoint would not keep all that training changes.

    Raises:
        RinError: it has batch normalisation, whose running statistics are no weights.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats:  # pyright: ignore[reportPrivateUsage]
            raise RinError(f"{name} keeps running statistics, which are in no checkpoint: take GroupNorm or LayerNorm")


def check_condition(kind: Kind, degrade: str = "") -> None:
    """Refuses a network whose condition no data has, which would learn from zeros in its place.

    Args:
        kind: what it draws, and on what condition.
        degrade: how condition pictures are made (`DataConfig.degrade`).

    Raises:
        RinError: it takes embeddings, or a condition picture that there is not.
    """
    if kind.condition_shape and not degrade:
        raise RinError(
            f"model.condition_shape {kind.condition_shape}: no picture is made to draw from: give --data.degrade, or "
            "leave it empty"
        )
    if kind.num_condition_tokens:
        raise RinError(
            f"model.num_condition_tokens {kind.num_condition_tokens}: no data that can be trained on has texts or "
            "embeddings yet: take 0, with model.condition_dim 0, or write a loop of your own around Diffusion.loss"
        )
