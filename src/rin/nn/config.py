"""The configuration of a network."""

import math
from dataclasses import dataclass

from rin.core.configs import check_fields
from rin.core.errors import RinError
from rin.core.kind import Kind, is_image, is_set, is_signal, is_video
from rin.core.texts import NUM_BYTES


@dataclass(frozen=True, kw_only=True)
class RINConfig:
    """The size of a RIN and what it works on."""

    shape: tuple[int, ...] = (3, 32, 32)
    """One example: (channels, height, width) of an image, (channels, frames, height, width) of a clip to predict,
    or (vectors, width) of a set."""

    patch_size: int = 2
    """Height and width of a patch; divides those of the image."""

    temporal_patch_size: int = 1
    """Frames of a clip in one patch."""

    num_context_frames: int = 0
    """Clean frames given before those of a clip to predict."""

    condition_shape: tuple[int, ...] = ()
    """(channels, height, width) of a clean picture that an image is drawn from; empty for none. In training
    `data.degrade` decides it."""

    condition_in_place: bool = True
    """Whether each interface token gets the part of that picture that lies where its patch does. If not, the picture's
    patches are further interface tokens, and what they hold reaches the image's through the latents alone: so it is
    in models that were trained before there was this option."""

    num_classes: int = 0
    """Classes of the condition; 0 for none. In training the data decides how many, unless this is 0."""

    num_condition_tokens: int = 0
    """Tokens of an embedding condition, of a text for example; 0 for none."""

    condition_dim: int = 0
    """Width of those tokens. In training a text encoder or the data decides it."""

    text_encoder: str = ""
    """What makes those tokens of a caption: a text encoder of the transformers library, by its folder or its name on
    the Hub, which is not trained. Empty for none."""

    caption_length: int = 0
    """Bytes of a caption that the network reads, in place of a class: each is a latent. 0 for none."""

    num_latents: int = 128
    """Latents m, those for the noise level and the condition among them."""

    num_latents_min: int = 0
    """Fewest latents that the network learns to work with, so that each step of sampling can have as many as is asked
    for (an elastic network). Each update of training draws a number from this to `num_latents`, and uses the first of
    the learned latents. 0 always uses all, as in the paper."""

    latent_dim: int = 512
    """Width e of a latent; a multiple of 4 and of `num_heads`, 8 or more."""

    interface_dim: int = 256
    """Width d of an interface token."""

    compute_depth: tuple[int, ...] = (2, 2, 2)
    """Compute layers of each block; a block of depth 0 only reads."""

    num_heads: int = 16
    """Attention heads among the latents."""

    num_read_write_heads: int = 8
    """Attention heads of read and write; divides min(interface_dim, latent_dim)."""

    latent_mlp_ratio: int = 4
    """Hidden width of the latents' MLPs over their width."""

    interface_mlp_ratio: int = 2
    """Hidden width of the interface's MLPs over its width; 0 for none."""

    dropout_rate: float = 0.0
    """Dropout in the compute layers' MLPs."""

    depth_drop_rate: float = 0.0
    """Stochastic depth of the compute layers' branches."""

    position_deviation: float = 0.02
    """Deviation that positions and learned latents start with; the paper's is small beside the tokens' own 1."""

    set_positions: bool = True
    """Whether the vectors of a set have learned positions; without, their order means nothing: a point cloud."""

    gamma_scale: float = 1000.0
    """What gamma is multiplied by before its sinusoids."""

    mixing_size: int = 0
    """Side of a convolution, odd, by which neighbouring interface tokens of an image mix before each write; 0 for none,
    as in the paper. Ours: without it small networks and short runs draw mosaics of patches."""

    def __post_init__(self) -> None:
        """Refuses sizes that make no network."""
        check_fields(self, "model")
        self._check_positive()
        if not (is_set(self.shape) or is_image(self.shape) or is_video(self.shape)):
            raise RinError(
                f"model.shape {self.shape}: give (c h w) for images, (c 1 n) for signals, "
                "(c f h w) for video, (n c) for sets"
            )
        patch = (self.patch_height, self.patch_size)
        for name, size, of_patch in zip(("height", "width"), self.shape[-2:], patch, strict=True):
            if not is_set(self.shape) and size % of_patch:
                fits = [patch for patch in range(1, min(size, 1024) + 1) if size % patch == 0]
                *first, last = self.shape
                meant = f"; channels come first, as in {(last, *first)}" if last <= 4 < first[0] else ""
                raise RinError(
                    f"model.patch_size {self.patch_size} does not divide the {name} {size}: take one of {fits}{meant}"
                )
        if not is_video(self.shape) and (self.temporal_patch_size != 1 or self.num_context_frames):
            raise RinError(
                "model.temporal_patch_size and model.num_context_frames are for video: give a shape (c f h w)"
            )
        if self.condition_shape and not (is_image(self.shape) and is_image(self.condition_shape)):
            raise RinError(
                f"model.condition_shape {self.condition_shape} goes with images, and model.shape is {self.shape}: give "
                "(c h w) to a model of (c h w), or leave it empty"
            )
        if min(self.condition_shape, default=1) < 1:
            raise RinError(f"model.condition_shape {self.condition_shape}: every size must be 1 or more")
        for name, dim, heads in (
            ("num_heads", self.latent_dim, self.num_heads),
            ("num_read_write_heads", min(self.interface_dim, self.latent_dim), self.num_read_write_heads),
        ):
            if dim % heads:
                raise RinError(f"model.{name} {heads} does not divide the attention width {dim}")
        if self.latent_dim % 4 or self.latent_dim < 8:  # of 4, one sinusoid would be left, which has no deviation
            raise RinError(
                f"model.latent_dim {self.latent_dim}: take a multiple of 4 from 8 on, for the noise level's sinusoids"
            )
        if self.mixing_size < 0 or (self.mixing_size and self.mixing_size % 2 == 0):
            raise RinError(f"model.mixing_size {self.mixing_size}: take an odd number, or 0 for none")
        if self.mixing_size and not is_image(self.shape):
            raise RinError(f"model.mixing_size is for images (c h w), and model.shape is {self.shape}: take 0")
        if not self.set_positions and not is_set(self.shape):
            raise RinError(f"model.set_positions is for sets (n c), and model.shape is {self.shape}: leave it on")
        if self.num_learned_latents < 1:
            raise RinError(
                f"model.num_latents {self.num_latents} leaves no latent beside the noise level and the condition: "
                f"take more than {self.num_latents - self.num_learned_latents}"
            )
        least = self.num_condition_latents + 1
        if self.num_latents_min and not least <= self.num_latents_min <= self.num_latents:
            raise RinError(
                f"model.num_latents_min {self.num_latents_min}: take {least} (the noise level, the condition and one "
                f"learned latent) to {self.num_latents}, or 0 to always take all"
            )
        if self.caption_length and (self.num_condition_tokens or self.num_classes):
            raise RinError(
                "model.caption_length takes the place of model.num_classes and model.num_condition_tokens: take 0"
            )
        if self.text_encoder and not self.num_condition_tokens:
            raise RinError(
                "model.text_encoder makes the tokens of a caption: say how many, as in --model.num-condition-tokens 32"
            )
        if bool(self.num_condition_tokens) != bool(self.condition_dim or self.text_encoder):
            raise RinError("model.num_condition_tokens and model.condition_dim go together: give both or neither")

    def _check_positive(self) -> None:
        whole = (
            "patch_size",
            "temporal_patch_size",
            "latent_dim",
            "interface_dim",
            "num_heads",
            "num_read_write_heads",
        )
        for name in (*whole, "latent_mlp_ratio"):
            if getattr(self, name) < 1:
                raise RinError(f"model.{name} {getattr(self, name)}: take 1 or more")
        if min(self.shape, default=0) < 1:
            raise RinError(f"model.shape {self.shape}: every size must be 1 or more")
        if not self.compute_depth or min(self.compute_depth) < 0:
            raise RinError(
                f"model.compute_depth {self.compute_depth}: give the compute layers of each block, 0 or more"
            )
        for name in (
            "num_context_frames",
            "num_classes",
            "num_condition_tokens",
            "condition_dim",
            "caption_length",
            "num_latents_min",
            "interface_mlp_ratio",
        ):
            if getattr(self, name) < 0:
                raise RinError(f"model.{name} {getattr(self, name)}: take 0 or more")
        for name in ("position_deviation", "gamma_scale"):
            if not 1e-6 <= getattr(self, name) <= 1e6:  # float32's sines and squares end far beyond
                raise RinError(f"model.{name} {getattr(self, name)}: take a number from 1e-6 to 1e6")
        for name in ("dropout_rate", "depth_drop_rate"):
            if not 0 <= getattr(self, name) < 1:
                raise RinError(f"model.{name} {getattr(self, name)}: take a rate from 0 to below 1")

    @property
    def kind(self) -> Kind:
        """What a network of this size draws, and on what condition."""
        return Kind(
            shape=self.shape,
            num_classes=self.num_classes,
            num_context_frames=self.num_context_frames,
            condition_shape=self.condition_shape,
            num_condition_tokens=self.num_condition_tokens,
            condition_dim=self.condition_dim,
            caption_length=self.caption_length,
            text_encoder=self.text_encoder,
        )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of an image's patches."""
        height, width = self.shape[-2:]
        return height // self.patch_height, width // self.patch_size

    @property
    def patch_height(self) -> int:
        """Rows of a patch: `patch_size`, or 1 of a signal."""
        return 1 if is_signal(self.shape) else self.patch_size

    @property
    def condition_patch(self) -> tuple[int, int]:
        """Height and width of a patch of the condition picture.

        In place it is what lies where an image's patch does, of a picture enlarged so that the grid divides it. Else it
        is an image's own, or what of it divides the picture's.
        """
        _, height, width = self.condition_shape
        if self.condition_in_place:
            rows, columns = self.grid
            return math.lcm(height, rows) // rows, math.lcm(width, columns) // columns
        return math.gcd(height, self.patch_height), math.gcd(width, self.patch_size)

    @property
    def num_condition_patches(self) -> int:
        """Interface tokens of the condition picture; 0 if there is none, or if it is added in place."""
        if not self.condition_shape or self.condition_in_place:
            return 0
        (_, height, width), (p, q) = self.condition_shape, self.condition_patch
        return height // p * (width // q)

    @property
    def num_condition_latents(self) -> int:
        """Latents that hold the noise level and the condition."""
        return 1 + (self.num_classes > 0) + self.embedding_shape[0]

    @property
    def embedding_shape(self) -> tuple[int, int]:
        """How many tokens the embedding condition has and how wide they are: a caption's bytes, or as configured."""
        if self.caption_length:
            return self.caption_length, NUM_BYTES + self.caption_length
        return self.num_condition_tokens, self.condition_dim

    @property
    def classes_text(self) -> str:
        """How many classes it draws by, or what in their place; for people."""
        if self.caption_length:
            return f"captions of {self.caption_length} bytes"
        if self.text_encoder:
            return f"captions of {self.num_condition_tokens} tokens, by {self.text_encoder}"
        if self.num_condition_tokens:
            return f"embeddings of {self.num_condition_tokens} x {self.condition_dim}"
        return str(self.num_classes or "none")

    @property
    def num_learned_latents(self) -> int:
        """Latents with a learned start."""
        return self.num_latents - self.num_condition_latents

    @property
    def latent_counts(self) -> tuple[int, ...]:
        """The numbers of latents that training draws from, the least first: all alone, if the network is not elastic.

        The learned ones are spread evenly in their logarithm, two an octave: a drawn number is nearly log-uniform, and
        there are no more than eight, so that each is compiled once (PyTorch compiles a function for eight shapes).
        """
        if not self.num_latents_min:
            return (self.num_latents,)
        least, most = self.num_latents_min - self.num_condition_latents, self.num_learned_latents
        steps = min(math.ceil(2 * math.log2(most / least)), 7)
        learned = [round(least * (most / least) ** (step / max(steps, 1))) for step in range(steps + 1)]
        return tuple(self.num_condition_latents + count for count in sorted(set(learned)))
