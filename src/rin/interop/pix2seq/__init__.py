"""The authors' own TensorFlow code (google-research/pix2seq): its options, its variables.

There the interface is called tape, latents are slots, compute layers are latent processing units.
"""

from rin.core.errors import RinError
from rin.interop.pix2seq.names import lr_schedule, schedule, space
from rin.interop.pix2seq.options import (
    ARCHITECTURE,
    DIFFUSION,
    LEFT_OUT,
    TRAINING,
    WITHOUT_EFFECT,
    Options,
    diffusion_config,
    model_config,
    sampling_options,
    training_options,
)
from rin.interop.pix2seq.variables import Arrays, state_dict, variable_names
from rin.nn import RIN

__all__ = [
    "ARCHITECTURE",
    "DIFFUSION",
    "LEFT_OUT",
    "TRAINING",
    "WITHOUT_EFFECT",
    "Arrays",
    "Options",
    "diffusion_config",
    "load",
    "lr_schedule",
    "model_config",
    "sampling_options",
    "schedule",
    "space",
    "state_dict",
    "training_options",
    "variable_names",
]


def load(config: Options, weights: Arrays) -> RIN:
    """The original's network, in evaluation mode.

    Args:
        config: its options under their own names, flat (others than the network's may be among them).
        weights: its variables under their own names.

    Raises:
        RinError: an option that we leave out or do not know, or a variable that is missing, too many, misshapen or
            not finite.
    """
    model = RIN(model_config(config))
    tensors = state_dict(model, weights)
    for name, value in tensors.items():
        if not value.isfinite().all():
            raise RinError(f"the variable for {name!r} is not finite (NaN or infinity)")
    model.load_state_dict(tensors)
    return model.eval()
