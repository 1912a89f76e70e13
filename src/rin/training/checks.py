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
    """Refuses a network that draws from a picture which is not made.

    Args:
        kind: what it draws, and on what condition.
        degrade: how condition pictures are made (`DataConfig.degrade`).

    Raises:
        RinError: it does.
    """
    if kind.condition_shape and not degrade:
        raise RinError(
            f"model.condition_shape {kind.condition_shape}: no picture is made to draw from: give --data.degrade, or "
            "leave it empty"
        )


def check_embeddings(kind: Kind, has_any: bool) -> None:
    """Refuses a network whose embeddings no data has, which would learn from zeros in their place.

    Args:
        kind: what it draws, and on what condition.
        has_any: whether the data has embeddings.

    Raises:
        RinError: there are none, or it takes classes beside them, which the same labels would stand for.
    """
    if kind.num_condition_tokens and not (kind.text_encoder or has_any):
        raise RinError(
            f"model.num_condition_tokens {kind.num_condition_tokens}: the data has no embeddings to learn from: give "
            "captions and --model.text-encoder, or rin.data.Source(data, embeddings=...), or take 0, with "
            "model.condition_dim 0"
        )
    if kind.num_condition_tokens and kind.num_classes:
        raise RinError(f"model.num_classes {kind.num_classes}: labels stand for captions or embeddings here: take 0")
