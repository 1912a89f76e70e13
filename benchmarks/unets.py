"""U-Nets to measure against, of diffusers' parts: ADM's for images and a 3-D one for clips.

ADM's are the published networks, weight for weight. The 3-D one is our own build at a published size; what of it is
published and what is assumed, `VideoUNet` says.

All are called `network(x, t, labels)` with x in [-1, 1] and t in [0, 1].
"""

from typing import NamedTuple

import torch
from diffusers import UNet2DModel
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from einops import rearrange
from torch import Tensor, nn

ATTENTION_RESOLUTIONS = (32, 16, 8)
"""Heights at which ADM and Video Diffusion Models have attention, beside the middle."""

HEAD_CHANNELS = 64
"""Channels of a head: published of all, but for ADM at 128, which has 4 heads (the same weights and operations)."""


class Layout(NamedTuple):
    """The size of a U-Net."""

    base_channels: int
    num_blocks: int
    """Residual blocks of each resolution on the way down; one more on the way up."""
    multipliers: tuple[float, ...]
    """Channels of each resolution over `base_channels`, from the finest on."""

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each resolution."""
        return tuple(int(self.base_channels * multiplier) for multiplier in self.multipliers)


ADM_LAYOUTS = {
    64: Layout(192, 3, (1, 2, 3, 4)),
    128: Layout(256, 2, (1, 1, 2, 3, 4)),
    256: Layout(256, 2, (1, 1, 2, 2, 4, 4)),
    512: Layout(256, 2, (0.5, 1, 1, 2, 2, 4, 4)),
}
"""ImageNet, class-conditional (Dhariwal and Nichol 2021, arXiv 2105.05233, table 11)."""

VIDEO_LAYOUT = Layout(256, 2, (1, 2, 4, 8))
"""Kinetics, 16x64x64 (Ho et al. 2022, arXiv 2204.03458, appendix A)."""


def adm_unet(size: int, layout: Layout | None = None, num_classes: int = 1000) -> nn.Module:
    """ADM's U-Net for images (b 3 size size); without a layout, the published one of that size."""
    return ADM(size, layout or ADM_LAYOUTS[size], num_classes)


def video_unet(shape: tuple[int, int, int, int] = (3, 16, 64, 64), layout: Layout = VIDEO_LAYOUT) -> nn.Module:
    """A 3-D U-Net for clips (b c f h w) of that shape, without classes."""
    return VideoUNet(shape, layout)


class ADM(nn.Module):
    """diffusers' `UNet2DModel` as ADM has it: attention at 32, 16 and 8, residual blocks that also resample.

    Six channels come out, the mean's and the variance's.
    """

    def __init__(self, size: int, layout: Layout, num_classes: int) -> None:
        super().__init__()
        base = layout.base_channels
        attends = [size >> level in ATTENTION_RESOLUTIONS for level in range(len(layout.multipliers))]
        self.network = UNet2DModel(
            sample_size=size,
            out_channels=6,
            block_out_channels=layout.channels,
            layers_per_block=layout.num_blocks,
            down_block_types=tuple("AttnDownBlock2D" if at else "ResnetDownsampleBlock2D" for at in attends),
            up_block_types=tuple("AttnUpBlock2D" if at else "ResnetUpsampleBlock2D" for at in reversed(attends)),
            downsample_type="resnet",
            upsample_type="resnet",
            attention_head_dim=HEAD_CHANNELS,
            attn_norm_num_groups=32,  # else the middle's attention goes without its norm
            resnet_time_scale_shift="scale_shift",
            time_embedding_dim=4 * base,
            num_class_embeds=num_classes,
        )
        # diffusers' sinusoids are as wide as the finest resolution, which at 512 is half of ADM's
        self.network.time_proj = Timesteps(base, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.network.time_embedding = TimestepEmbedding(base, 4 * base)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """Mean and variance (b 6 h w) for noisy images x (b 3 h w), times t (b) and classes (b)."""
        return self.network(x, t * 1000, labels).sample


class VideoUNet(nn.Module):
    """A 3-D U-Net factorised over space and time, for 16x64x64 in the size of Video Diffusion Models' for Kinetics.

    Published (arXiv 2204.03458, section 3 and appendix A): convolutions of 1x3x3; attention over space, then over
    time, after each residual block at 32, 16 and 8; channels, multipliers, blocks, head and embedding widths; the
    embedding added within each residual block; two layers of embedding MLP.

    Assumed, from an image U-Net that two of its authors released (google-research/diffusion_distillation): which
    activations skip ahead, attention in the middle, group norms, here of one frame each, and resampling by
    convolution; of the two ways there this is the cheaper one, and 1,142 M weights are the nearer to the 1.1 B that
    we believe, and could not verify, the published network to have. Ours: learned positions of the frames in place of
    relative ones. Context frames would be among those of the clip, at no cost of their own.
    """

    def __init__(self, shape: tuple[int, int, int, int], layout: Layout, embedding_dim: int = 1024) -> None:
        super().__init__()
        colours, num_frames, size, _ = shape
        widths, now = layout.channels, layout.channels[0]

        def block(channels_in: int, channels: int, attends: bool) -> VideoBlock:
            return VideoBlock(channels_in, channels, embedding_dim, num_frames if attends else 0)

        self.sinusoids = Timesteps(layout.base_channels, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time = TimestepEmbedding(layout.base_channels, embedding_dim)
        self.first = nn.Conv2d(colours, now, 3, padding=1)
        self.down, self.up, skips = nn.ModuleList(), nn.ModuleList(), [now]
        for level, channels in enumerate(widths):
            for _ in range(layout.num_blocks):
                self.down.append(block(now, channels, size >> level in ATTENTION_RESOLUTIONS))
                now = channels
                skips.append(now)
            if level < len(widths) - 1:
                self.down.append(Downsample2D(now, use_conv=True))
                skips.append(now)
        self.middle = nn.ModuleList([block(now, now, True), block(now, now, False)])
        for level, channels in reversed(list(enumerate(widths))):
            for _ in range(layout.num_blocks + 1):
                self.up.append(block(now + skips.pop(), channels, size >> level in ATTENTION_RESOLUTIONS))
                now = channels
            if level:
                self.up.append(Upsample2D(now, use_conv=True))
        self.last = nn.Sequential(nn.GroupNorm(32, now), nn.SiLU(), nn.Conv2d(now, colours, 3, padding=1))

    def forward(self, clip: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """A prediction (b c f h w) for noisy clips of that shape and times t (b); there are no classes to tell."""
        assert labels is None, "this network knows no classes"
        num_frames = clip.shape[2]
        told = self.time(self.sinusoids(t * 1000).to(clip.dtype)).repeat_interleave(num_frames, dim=0)
        frames = self.first(rearrange(clip, "b c f h w -> (b f) c h w"))  # 1x3x3 over clips is 3x3 over frames
        skips = [frames]
        for layer in self.down:
            frames = layer(frames) if isinstance(layer, Downsample2D) else layer(frames, told)
            skips.append(frames)
        for layer in self.middle:
            frames = layer(frames, told)
        for layer in self.up:
            if isinstance(layer, Upsample2D):
                frames = layer(frames)
            else:
                frames = layer(torch.cat([frames, skips.pop()], dim=1), told)
        return rearrange(self.last(frames), "(b f) c h w -> b c f h w", f=num_frames)


class VideoBlock(nn.Module):
    """A residual block over frames ((b f) c h w), then attention over space and over time; 0 frames for neither."""

    def __init__(self, channels_in: int, channels: int, embedding_dim: int, num_frames: int) -> None:
        super().__init__()
        self.residual = ResnetBlock2D(in_channels=channels_in, out_channels=channels, temb_channels=embedding_dim)
        self.num_frames = num_frames
        if num_frames:
            self.space, self.time = attention(channels), attention(channels)
            self.positions = nn.Parameter(torch.zeros(num_frames, channels))

    def forward(self, frames: Tensor, told: Tensor) -> Tensor:
        """The frames after the block, given their embeddings ((b f) embedding)."""
        frames = self.residual(frames, told)
        if not self.num_frames:
            return frames
        height = frames.shape[2]
        places = rearrange(self.space(frames), "(b f) c h w -> (b h w) f c", f=self.num_frames)
        places = self.time(places + self.positions)
        return rearrange(places, "(b h w) f c -> (b f) c h w", h=height, w=height)


def attention(channels: int) -> Attention:
    """Self-attention with its group norm and its residual, over (b n c) or over the places of (b c h w)."""
    return Attention(
        channels,
        heads=channels // HEAD_CHANNELS,
        dim_head=HEAD_CHANNELS,
        norm_num_groups=32,
        bias=True,
        residual_connection=True,
    )
