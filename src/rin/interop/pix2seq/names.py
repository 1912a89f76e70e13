"""Our names of the original's schedules, predictions, losses and samplers."""

from typing import Any

from rin.core.errors import RinError, unknown


def schedule(text: str) -> str:
    """Our name of one of the original's schedules.

    Raises:
        RinError: it is the logarithmic one, which we leave out.
    """
    if text.startswith("log@"):
        raise RinError(f"schedule {text!r}: rin leaves out the logarithmic schedule")
    return "linear" if text.startswith("simple_linear") else text


def lr_schedule(text: str) -> str:
    """Our name of one of the original's learning-rate schedules.

    Raises:
        RinError: it is the exponential one, which we leave out.
    """
    if text.startswith("exp@"):
        raise RinError(f"learning-rate schedule {text!r}: rin leaves out the exponential schedule")
    return "constant" if text == "none" else text


def space(text: str) -> Any:
    """Our name of a prediction or loss type.

    Raises:
        RinError: it is another than the squared error in eps, x or v.
    """
    if text.endswith("_xent"):
        raise RinError(f"pred_type or loss_type {text!r}: rin leaves out cross entropies; take eps, x or v")
    names: dict[str, Any] = {"eps": "eps", "x": "x", "x_start": "x", "v": "v"}
    if text not in names:
        raise unknown("pred_type or loss_type", text, names)
    return names[text]


def sampler(text: str) -> Any:
    """Our name of one of the original's samplers, which have the variance behind an @, large if absent.

    Raises:
        RinError: there is none of that name.
    """
    names = {"ddpm@small": "ddpm-small", "ddpm@large": "ddpm", "ddpm": "ddpm", "ddim": "ddim"}
    if text not in names:
        raise unknown("sampler", text, names)
    return names[text]
