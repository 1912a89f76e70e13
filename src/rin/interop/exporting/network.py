"""The network as others are given it: tensors in and out by name, in float32, and nothing of a processor's own."""

import copy

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from rin.core.denoiser import Condition
from rin.core.errors import RinError
from rin.core.shapes import Examples, Latents, PerExample
from rin.core.texts import byte_tokens
from rin.nn import RIN, RINConfig
from rin.nn.linear import Linear
from rin.nn.tokenizers import PatchTokenizer

OUTPUTS = ("prediction", "latents")
"""What one pass returns."""


class OnePass(nn.Module):
    """One pass of a RIN: a copy of it on the CPU, in float32 and in evaluation mode.

    Args:
        model: the network.

    Raises:
        RinError: it is no RIN of its configuration alone, or reads embeddings.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        if type(model) is not RIN or not isinstance(model.tokenizer, PatchTokenizer):
            raise RinError(
                "only a RIN with a tokenizer of rin's can be exported, and this is another network: export it by "
                "torch.onnx.export"
            )
        if model.config.num_condition_tokens:
            raise RinError(
                "a model that reads embeddings cannot be exported, since nothing beside it could make them: models "
                "with classes or captions can"
            )
        self.network = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
        for layer in self.network.modules():
            if isinstance(layer, Linear):
                layer.has_faster = False  # an operator of rin's own, see rin.nn.linear

    def forward(
        self,
        x: Examples,
        gamma: PerExample,
        latents_prev: Latents,
        labels: Int[Tensor, " b"] | None = None,
        texts: UInt8[Tensor, "b length"] | None = None,
        context: Float[Tensor, "b ..."] | None = None,
    ) -> tuple[Examples, Latents]:
        """What the network predicts, and its latents.

        Args:
            x: noisy data, as the network is given it (b ...).
            gamma: share of clean data's variance in x, in [0, 1] (b).
            latents_prev: latents of the pass before; zeros before the first (b m e).
            labels: classes, -1 for none (b); only of a model with classes.
            texts: captions in UTF-8, with zeros behind their end, zeros alone for none (b length); only of a model with
                captions.
            context: frames that come before or a condition picture, scaled as x is; only of a model that takes such.
        """
        embeddings, mask = (None, None) if texts is None else (byte_tokens(texts), texts > 0)
        condition = Condition(labels=labels, embeddings=embeddings, embedding_mask=mask, context=context)
        prediction, latents = self.network(x, gamma, condition, latents_prev)
        return prediction, latents

    def inputs(self, batch: int) -> dict[str, Tensor]:
        """Random inputs of one pass, by name."""
        config, draw = self.network.config, torch.Generator().manual_seed(batch)
        given = {
            "x": torch.randn(batch, *config.shape, generator=draw),
            "gamma": torch.rand(batch, generator=draw),
            "latents_prev": torch.randn(batch, *latents_shape(config), generator=draw),
        }
        if config.num_classes:
            given["labels"] = torch.randint(-1, config.num_classes, (batch,), generator=draw)
        if config.caption_length:
            given["texts"] = torch.randint(256, (batch, config.caption_length), generator=draw, dtype=torch.uint8)
        if config.kind.context_shape:
            given["context"] = torch.randn(batch, *config.kind.context_shape, generator=draw)
        return given

    def program(self) -> torch.export.ExportedProgram:
        """The pass as a program of PyTorch's own operators, for any number of examples."""
        given = self.inputs(3)
        batch = torch.export.Dim("batch", min=1)
        shapes = {name: {0: batch} for name in given}
        with torch.no_grad():
            program = torch.export.export(self, (), given, dynamic_shapes=shapes, strict=False)
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # paths of this machine
        return program


def latents_shape(config: RINConfig) -> tuple[int, int]:
    """Of one example's latents (m e)."""
    return config.num_latents, config.latent_dim
