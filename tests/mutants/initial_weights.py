"""How weights begin."""

from tests.mutants.mutant import INITIALISATION, RIN, TOKENIZERS, Mutant, nn

MUTANTS = [
    Mutant(
        "initial-query-key-value",
        INITIALISATION,
        "glorot_(layer, layer.in_features * heads, layer.in_features * head_dim)",
        "glorot_(layer, layer.in_features, layer.out_features)",
        "query, key and value kernels have the fans of a kernel of three axes",
        (nn("test_attention_starts_as_kernels_of_three_axes"),),
        quick=True,
    ),
    Mutant(
        "initial-attention-output",
        INITIALISATION,
        "glorot_(attention.out, heads * head_dim, heads * width)",
        "glorot_(attention.out, heads * head_dim, width)",
        "the output kernel has the fans of a kernel of three axes",
        (nn("test_attention_starts_as_kernels_of_three_axes"),),
    ),
    Mutant(
        "initial-patch-layer",
        TOKENIZERS,
        "return values, values // channels * patch.out_features",
        "return values, patch.out_features",
        "the patch layer has a convolution's fans",
        (nn("test_the_patch_layer_starts_as_a_convolution"),),
    ),
    Mutant(
        "initial-positions-not-cut",
        INITIALISATION,
        "nn.init.trunc_normal_(positions, std=deviation, a=-bound, b=bound)",
        "nn.init.normal_(positions, std=deviation)",
        "positions are cut at two deviations",
        (nn("test_positions_start_normal_and_cut_at_two_deviations"),),
    ),
    Mutant(
        "initial-positions-cut-at-2",
        INITIALISATION,
        "a=-bound, b=bound)",
        "a=-2.0, b=2.0)",
        "positions are cut at two deviations, not at two",
        (nn("test_positions_start_normal_and_cut_at_two_deviations"),),
    ),
    Mutant(
        "initial-latents-not-drawn-as-positions",
        RIN,
        "        positions_(self.latents, self.config.position_deviation)\n",
        "        nn.init.normal_(self.latents)\n",
        "learned latents start with deviation 0.02",
        (nn("test_learned_latents_and_positions_of_a_network_are_drawn_as_positions"),),
    ),
    Mutant(
        "initial-bytes-as-a-linear-layer",
        INITIALISATION,
        "    nn.init.normal_(bytes_and_places.weight)\n",
        "    nn.init.xavier_uniform_(bytes_and_places.weight)\n",
        "bytes of captions and their places start as large as learned latents",
        ("tests/unit/test_captions.py::test_bytes_and_places_begin_as_large_as_learned_latents",),
    ),
    Mutant(
        "initial-self-conditioning-at-one",
        INITIALISATION,
        "nn.init.zeros_(module.norm.weight)",
        "nn.init.ones_(module.norm.weight)",
        "the norm after the previous latents starts at zero",
        (nn("test_self_conditioning_is_a_no_op_before_training"),),
    ),
]
