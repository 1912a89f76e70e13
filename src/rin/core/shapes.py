"""The legend of the shapes in signatures, one for the whole package.

| letter | meaning |
|---|---|
| b | examples in a batch |
| n | interface tokens |
| m | latents, condition tokens included |
| d | interface width |
| e | latent width |
| k | condition tokens of an embedding |
| c f h w | channels, frames, height, width |

Tensors are channels-first: images (b c h w), video (b c f h w), sets of vectors (b n c). A shape of one name begins
with a space, `Float[Tensor, " b"]`, for tools that would look for a class of that name.
"""

from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

Examples = Float[Tensor, "b ..."]
"""Images (b c h w), video (b c f h w) or sets (b n c), in [-1, 1] when clean."""

PerExample = Float[Tensor, " b"]
"""One number an example: t, gamma."""

Mask = Bool[Tensor, " b"]
"""One truth an example."""

Labels = Int[Tensor, " b"]
"""One class an example; -1 stands for a dropped label."""

Latents = Float[Tensor, "b m e"]
"""The latents Z."""

LatentsBefore = Float[Tensor, "b m_before e"]
"""Those of the step before: an elastic network may have had more of them then, or fewer."""

Interface = Float[Tensor, "b n d"]
"""The interface X."""

Pictures = UInt8[Tensor, "b c h w"]
"""Images as files hold them, 0 to 255."""

Clips = UInt8[Tensor, "b c f h w"]
"""Clips as files hold them, 0 to 255."""

Media = UInt8[Tensor, "b c *f h w"]
"""Images or clips as files hold them, 0 to 255: either of the two above."""

Stored = UInt8[Tensor, "b ..."] | Float[Tensor, "b ..."]
"""Examples as a data set gives them: 0 to 255, or floats in [-1, 1]."""
