"""Mutants: each undoes one detail that ports of the model get wrong, and a test must see it.

    python tests/mutants.py [NAME ...]

copies the code, changes one place, runs the tests that should notice, and prints a line a mutant. A mutant that no
test notices makes the exit status 1.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Mutant(NamedTuple):
    """One change of the code, and the tests that are to go red."""

    name: str
    file: str  # below src/rin
    original: str
    mutated: str
    undoes: str
    tests: tuple[str, ...]
    quick: bool = False  # cheap and important enough for every run of the tests


def nn(name):
    return f"tests/unit/test_nn.py::{name}"


def diffusion(name):
    return f"tests/unit/test_diffusion.py::{name}"


def optim(name):
    return f"tests/unit/test_optim.py::{name}"


def training(name):
    return f"tests/unit/test_training.py::{name}"


def clips(name):
    return f"tests/unit/test_clips.py::{name}"


def processes(name):
    return f"tests/end_to_end/test_processes.py::{name}"


def reference(case):
    return f"tests/reference/test_reference.py::test_case[{case}]"


INITIALISATION, TOKENIZERS, EMBEDDINGS = "nn/initialisation.py", "nn/tokenizers.py", "nn/embeddings.py"
BLOCKS, RIN = "nn/blocks.py", "nn/rin.py"
DIFFUSION, LOSS, SAMPLERS = "diffusion/diffusion.py", "diffusion/loss.py", "diffusion/samplers.py"
PREDICTIONS = "diffusion/predictions.py"
OPTIM, CONFIG, RATES, AVERAGE = (f"training/{name}.py" for name in ("optim", "config", "lr_schedules", "average"))
SHARDING = "training/sharding.py"

MUTANTS = [
    # 1. Initial weights
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
        "return values, values // self.channels * self.patch.out_features",
        "return values, self.patch.out_features",
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
        "initial-self-conditioning-at-one",
        INITIALISATION,
        "nn.init.zeros_(module.norm.weight)",
        "nn.init.ones_(module.norm.weight)",
        "the norm after the previous latents starts at zero",
        (nn("test_self_conditioning_is_a_no_op_before_training"),),
    ),
    # 2. LAMB
    Mutant(
        "lamb-clamped-ratio",
        OPTIM,
        "weight_norms / move_norms, 1.0)",
        "(weight_norms / move_norms).clamp(max=10.0), 1.0)",
        "no clamp on the trust ratio",
        (optim("test_the_trust_ratio_is_not_clamped_and_is_1_where_a_norm_is_0"), optim("test_lamb_is_lamb")),
        quick=True,
    ),
    Mutant(
        "lamb-no-bias-correction",
        OPTIM,
        'torch.as_tensor(group["step"], dtype=torch.float32, device=weights[0].device)',
        "torch.full((), 1e9, device=weights[0].device)",
        "bias correction",
        (optim("test_lamb_is_lamb"),),
    ),
    Mutant(
        "lamb-decay-within-the-moments",
        OPTIM,
        "gradients = [weight.grad for weight in weights if weight.grad is not None]",
        'gradients = torch._foreach_add([weight.grad for weight in weights], weights, alpha=group["weight_decay"])',
        "decay is decoupled from the moments",
        (optim("test_lamb_is_lamb"),),
    ),
    Mutant(
        "lamb-ratio-0-at-zero-weights",
        OPTIM,
        "torch.where((weight_norms > 0) & (move_norms > 0), weight_norms / move_norms, 1.0)",
        "weight_norms / move_norms.clamp(min=1e-12)",
        "the ratio is 1 where a norm is 0",
        (optim("test_the_trust_ratio_is_not_clamped_and_is_1_where_a_norm_is_0"), optim("test_lamb_is_lamb")),
    ),
    Mutant(
        "lamb-biases-decay",
        OPTIM,
        '"weight_decay": 0.0, "adapt": False}',
        '"weight_decay": weight_decay, "adapt": False}',
        "biases and LayerNorm do not decay",
        (optim("test_biases_and_norms_alone_are_free_of_decay_and_ratio"),),
    ),
    Mutant(
        "lamb-biases-adapt",
        OPTIM,
        '"weight_decay": 0.0, "adapt": False}',
        '"weight_decay": 0.0, "adapt": True}',
        "biases and LayerNorm take no ratio",
        (optim("test_biases_and_norms_alone_are_free_of_decay_and_ratio"), reference("train_lamb")),
    ),
    Mutant(
        "lamb-positions-do-not-decay",
        OPTIM,
        '        {"params": [w for w in weights if w.ndim > 1], "weight_decay": weight_decay, "adapt": True},\n',
        '        {"params": [w for w in weights if w.ndim > 1 and w is not model.tokenizer.positions],\n'
        '         "weight_decay": weight_decay, "adapt": True},\n'
        '        {"params": [model.tokenizer.positions], "weight_decay": 0.0, "adapt": True},\n',
        "positions decay",
        (optim("test_biases_and_norms_alone_are_free_of_decay_and_ratio"),),
    ),
    Mutant(
        "lamb-latents-do-not-decay",
        OPTIM,
        '        {"params": [w for w in weights if w.ndim > 1], "weight_decay": weight_decay, "adapt": True},\n',
        '        {"params": [w for w in weights if w.ndim > 1 and w is not model.latents],\n'
        '         "weight_decay": weight_decay, "adapt": True},\n'
        '        {"params": [model.latents], "weight_decay": 0.0, "adapt": True},\n',
        "learned latents decay",
        (optim("test_biases_and_norms_alone_are_free_of_decay_and_ratio"),),
    ),
    Mutant(
        "lamb-joint-ratio",
        OPTIM,
        "    weight_norms, move_norms = norms.chunk(2)\n",
        "    weight_norms, move_norms = (part.norm().expand(len(weights)) for part in norms.chunk(2))\n",
        "each tensor has a ratio of its own",
        (optim("test_lamb_takes_a_ratio_of_its_own_for_each_tensor"),),
    ),
    Mutant(
        "lamb-epsilon",
        CONFIG,
        "eps: float = 1e-8",
        "eps: float = 1e-6",
        "epsilon is 1e-8",
        (optim("test_the_defaults_are_the_papers"),),
    ),
    Mutant(
        "lamb-epsilon-not-the-groups",
        OPTIM,
        'eps=group["eps"]',
        "eps=1e-3",
        "epsilon is the configured one",
        (optim("test_lamb_is_lamb"),),
    ),
    Mutant(
        "lamb-clipped-gradients",
        OPTIM,
        "gradients = [weight.grad for weight in weights if weight.grad is not None]",
        "gradients = [w.grad / w.grad.norm().clamp(min=1.0) for w in weights if w.grad is not None]",
        "no gradient clipping with LAMB",
        (optim("test_lamb_is_lamb"),),
    ),
    # 3. Time embedding
    Mutant(
        "time-without-scale",
        EMBEDDINGS,
        "sinusoids(gamma * self.gamma_scale,",
        "sinusoids(gamma,",
        "gamma times 1000",
        (nn("test_the_noise_level_is_a_thousand_gamma_in_normalised_sinusoids"),),
    ),
    Mutant(
        "time-without-mean",
        EMBEDDINGS,
        "(waves - mean) / deviation",
        "waves / deviation",
        "the sinusoid is normalised by its mean",
        (nn("test_the_noise_level_is_a_thousand_gamma_in_normalised_sinusoids"),),
    ),
    Mutant(
        "time-without-normalisation",
        EMBEDDINGS,
        "(waves - mean) / deviation",
        "waves",
        "the sinusoid is normalised",
        (nn("test_the_noise_level_is_a_thousand_gamma_in_normalised_sinusoids"),),
    ),
    Mutant(
        "time-sample-deviation",
        EMBEDDINGS,
        "correction=0, keepdim=True",
        "correction=1, keepdim=True",
        "the sinusoid is normalised by its population deviation",
        (nn("test_the_noise_level_is_a_thousand_gamma_in_normalised_sinusoids"),),
    ),
    Mutant(
        "time-t-in-training",
        DIFFUSION,
        "prediction = _asked(model(model_input, gamma, told, latents_prev).prediction)",
        "prediction = _asked(model(model_input, t, told, latents_prev).prediction)",
        "the network is given gamma, not t",
        (diffusion("test_the_estimate_is_a_pass_without_gradient_on_the_same_noisy_data_from_no_latents"),),
    ),
    Mutant(
        "time-t-in-sampling",
        DIFFUSION,
        "told = model(model_input, gamma, condition, latents)",
        "told = model(model_input, 1 - gamma, condition, latents)",
        "the network is given gamma, not t",
        (diffusion("test_a_step_leads_one_step_on_or_td_steps_further"),),
    ),
    # 4. Sampling
    Mutant(
        "sampling-returns-x-t",
        DIFFUSION,
        "yield SamplingStep(x_0 / scale, x_t / scale, latents)",
        "yield SamplingStep(x_t / scale, x_t / scale, latents)",
        "the last prediction of clean data is returned",
        (diffusion("test_the_result_is_the_last_prediction_of_clean_data"),),
    ),
    Mutant(
        "sampling-noise-not-recomputed",
        DIFFUSION,
        "return estimate(prediction, x_t, gamma, space, clip, recompute_eps=True), told.latents",
        "return estimate(prediction, x_t, gamma, space, clip, recompute_eps=False), told.latents",
        "the noise is recomputed after clipping",
        (diffusion("test_noise_is_recomputed_after_clipping_in_every_step"),),
        quick=True,
    ),
    Mutant(
        "sampling-not-clipped",
        PREDICTIONS,
        "x_0 = x_0.clamp(-clip, clip)",
        "pass",
        "clean data is clipped",
        (diffusion("test_clean_data_is_clipped_and_the_noise_follows_only_if_asked"),),
    ),
    Mutant(
        "sampling-cold-latents",
        DIFFUSION,
        "gamma.expand(shape[0]), condition, latents, guidance)",
        "gamma.expand(shape[0]), condition, None, guidance)",
        "latents are carried from step to step",
        (diffusion("test_latents_are_carried_from_step_to_step"),),
    ),
    Mutant(
        "sampling-td-ignored",
        SAMPLERS,
        "max(1 - (step + 1 + td) / num_steps, 0.0)",
        "max(1 - (step + 1) / num_steps, 0.0)",
        "td shifts where a step leads",
        (diffusion("test_a_step_leads_one_step_on_or_td_steps_further"),),
    ),
    Mutant(
        "sampling-variances-swapped",
        SAMPLERS,
        "    if small:\n",
        "    if not small:\n",
        "ddpm has the large variance",
        (diffusion("test_the_ancestral_steps_have_their_variances"),),
    ),
    # 5. Guidance
    Mutant(
        "guidance-mixes-with-1-minus-g",
        DIFFUSION,
        "prediction = prediction + guidance * (prediction - _asked(untold.prediction))",
        "prediction = guidance * prediction + (1 - guidance) * _asked(untold.prediction)",
        "out_c + g (out_c - out_u)",
        (diffusion("test_guidance_adds_g_times_the_difference"),),
    ),
    Mutant(
        "guidance-second-pass-from-the-firsts-latents",
        DIFFUSION,
        "(condition or Condition()).null(), latents)",
        "(condition or Condition()).null(), told.latents)",
        "both passes start from the same latents",
        (diffusion("test_both_passes_of_guidance_start_from_the_latents_of_the_conditional_one"),),
    ),
    Mutant(
        "guidance-carries-unconditional-latents",
        DIFFUSION,
        "recompute_eps=True), told.latents",
        "recompute_eps=True), untold.latents if guidance else told.latents",
        "the conditional pass's latents are carried on",
        (diffusion("test_both_passes_of_guidance_start_from_the_latents_of_the_conditional_one"),),
    ),
    Mutant(
        "guidance-always-two-passes",
        DIFFUSION,
        "        if guidance:\n",
        "        if condition is not None:\n",
        "g = 0 is off",
        (diffusion("test_no_guidance_is_one_pass_a_step"),),
    ),
    Mutant(
        "guidance-for-every-model",
        DIFFUSION,
        "if guidance and not self.config.label_drop_rate:",
        "if False:",
        "guidance needs label dropping in training",
        (diffusion("test_sampling_that_cannot_be_is_refused"),),
    ),
    # 6. Dropout, stochastic depth, the estimate pass
    Mutant(
        "dropout-after-the-second-layer",
        BLOCKS,
        "        hidden = F.dropout(F.gelu(self.up(self.norm(tokens))), self.dropout_rate, self.training)\n"
        "        return tokens + self.stochastic_depth(self.down(hidden))\n",
        "        hidden = self.down(F.gelu(self.up(self.norm(tokens))))\n"
        "        return tokens + self.stochastic_depth(F.dropout(hidden, self.dropout_rate, self.training))\n",
        "dropout sits before the second layer",
        (nn("test_dropout_falls_on_what_leaves_the_gelu"),),
        quick=True,
    ),
    Mutant(
        "dropout-before-the-gelu",
        BLOCKS,
        "F.dropout(F.gelu(self.up(self.norm(tokens))), self.dropout_rate, self.training)",
        "F.gelu(F.dropout(self.up(self.norm(tokens)), self.dropout_rate, self.training))",
        "dropout sits behind the GELU",
        (nn("test_dropout_falls_on_what_leaves_the_gelu"),),
    ),
    Mutant(
        "dropout-in-read-and-write",
        BLOCKS,
        "self.mlp = MLP(dim, mlp_ratio) if mlp_ratio",
        "self.mlp = MLP(dim, mlp_ratio, 0.1) if mlp_ratio",
        "dropout is in the compute MLPs alone",
        (nn("test_dropout_is_in_the_compute_mlps_alone"),),
    ),
    Mutant(
        "stochastic-depth-not-on-attention",
        BLOCKS,
        "latents + self.stochastic_depth(self.attention(normed, normed))",
        "latents + self.attention(normed, normed)",
        "stochastic depth is on both branches",
        (nn("test_stochastic_depth_is_on_both_branches_of_a_compute_layer"),),
    ),
    Mutant(
        "stochastic-depth-not-on-the-mlp",
        BLOCKS,
        "return tokens + self.stochastic_depth(self.down(hidden))",
        "return tokens + self.down(hidden)",
        "stochastic depth is on both branches",
        (nn("test_stochastic_depth_is_on_both_branches_of_a_compute_layer"),),
    ),
    Mutant(
        "stochastic-depth-by-batch",
        BLOCKS,
        "torch.rand(branch.shape[0], 1, 1, device=branch.device)",
        "torch.rand(1, 1, 1, device=branch.device)",
        "stochastic depth drops an example at a time",
        (nn("test_stochastic_depth_drops_whole_examples_and_keeps_the_mean"),),
    ),
    Mutant(
        "stochastic-depth-by-token",
        BLOCKS,
        "torch.rand(branch.shape[0], 1, 1, device=branch.device)",
        "torch.rand(*branch.shape[:2], 1, device=branch.device)",
        "stochastic depth drops an example at a time",
        (nn("test_stochastic_depth_drops_whole_examples_and_keeps_the_mean"),),
    ),
    Mutant(
        "stochastic-depth-unscaled",
        BLOCKS,
        "(kept / (1 - self.rate))",
        "kept",
        "what stochastic depth keeps is scaled up",
        (nn("test_stochastic_depth_drops_whole_examples_and_keeps_the_mean"),),
    ),
    Mutant(
        "stochastic-depth-growing-with-depth",
        RIN,
        "config.dropout_rate, config.depth_drop_rate)\n        for _ in range(depth)",
        "config.dropout_rate, config.depth_drop_rate * (i + 1) / depth)\n        for i in range(depth)",
        "stochastic depth has one rate",
        (nn("test_stochastic_depth_has_one_rate_in_every_compute_layer_and_none_elsewhere"),),
    ),
    Mutant(
        "estimate-in-evaluation-mode",
        LOSS,
        "    latents = model(x, gamma, condition, latents_only=True).latents\n",
        "    training = model.training\n"
        "    model.eval()\n"
        "    latents = model(x, gamma, condition, latents_only=True).latents\n"
        "    model.train(training)\n",
        "the estimate pass runs in training mode",
        (diffusion("test_the_estimate_pass_has_dropout_of_its_own"),),
    ),
    Mutant(
        "estimate-with-the-masks-of-the-main-pass",
        LOSS,
        "    latents = model(x, gamma, condition, latents_only=True).latents\n",
        "    with torch.random.fork_rng():\n        latents = model(x, gamma, condition, latents_only=True).latents\n",
        "the estimate pass has masks of its own",
        (diffusion("test_the_estimate_pass_has_dropout_of_its_own"),),
    ),
    Mutant(
        "estimate-with-the-label-drops-of-the-main-pass",
        DIFFUSION,
        "Purpose.KEEP_LABELS_ESTIMATE)",
        "Purpose.KEEP_LABELS)",
        "the estimate pass has label drops of its own",
        (diffusion("test_label_drops_of_the_two_passes_are_draws_of_their_own"),),
        quick=True,
    ),
    Mutant(
        "estimate-with-gradient",
        LOSS,
        "@torch.no_grad()\n",
        "",
        "the estimate passes no gradient",
        (nn("test_the_estimate_passes_no_gradient"),),
    ),
    Mutant(
        "estimate-for-every-example",
        LOSS,
        "return _first_pass(model, x, gamma, condition) * self_cond[:, None, None]",
        "return _first_pass(model, x, gamma, condition)",
        "a share of the examples starts from zeros",
        (diffusion("test_the_estimate_is_a_pass_without_gradient_on_the_same_noisy_data_from_no_latents"),),
    ),
    Mutant(
        "autocast-keeps-the-casts-of-the-estimate",
        LOSS,
        "torch.clear_autocast_cache()",
        "pass",
        "in bfloat16 the main pass has a graph of its own",
        (diffusion("test_casts_of_the_estimate_are_not_kept_for_the_main_pass"),),
    ),
    Mutant(
        "self-conditioning-share-of-the-part",
        LOSS,
        "if int((place + 1) * rate) > int(place * rate)",
        "if number < int(len(places) * rate)",
        "the share is that of the global batch",
        (diffusion("test_a_share_is_exact_and_every_part_of_the_batch_has_its_own"),),
    ),
    Mutant(
        "estimate-told-other-conditions",
        LOSS,
        "condition.rows(self_cond)",
        "condition.rows(slice(len(self_cond)))",
        "an example's estimate is told its own condition",
        (diffusion("test_a_share_computes_the_estimate_of_its_own_examples_alone"),),
    ),
    # 7. Learning rate
    Mutant(
        "cosine-compressed",
        RATES,
        "length = (num_steps - warmup_steps) / share",
        "length = (num_steps - warmup_steps) * share",
        "cosine@0.8 is the first 80 % of the descent",
        (optim("test_rates_have_their_closed_form"),),
    ),
    Mutant(
        "cosine-share-ignored",
        RATES,
        "length = (num_steps - warmup_steps) / share",
        "length = num_steps - warmup_steps",
        "cosine@0.8 is the first 80 % of the descent",
        (optim("test_rates_have_their_closed_form"),),
    ),
    Mutant(
        "warm-up-from-1",
        RATES,
        "return base * step / warmup_steps",
        "return base * (step + 1) / warmup_steps",
        "the first update under warm-up has rate 0",
        (optim("test_the_first_update_under_warm_up_has_rate_0_and_the_warm_up_is_linear"),),
    ),
    # 8. The average
    Mutant(
        "average-from-zeros",
        AVERAGE,
        "        self._source = model\n",
        "        self._source = model\n        torch._foreach_zero_(list(self.model.parameters()))\n",
        "the average starts at the weights",
        (optim("test_the_average_starts_at_the_weights_before_the_first_update"),),
        quick=True,
    ),
    Mutant(
        "average-from-the-first-update",
        AVERAGE,
        "share = 1 - average_decay(update, self.decay, self.warmup)",
        "share = 1.0 if update == 0 else 1 - average_decay(update, self.decay, self.warmup)",
        "the average starts before the first update",
        (optim("test_the_average_starts_at_the_weights_before_the_first_update"),),
    ),
    Mutant(
        "average-always-warmed-up",
        AVERAGE,
        "(10 + update)) if warmup else decay",
        "(10 + update))",
        "the decay is plain from the first step on",
        (optim("test_the_decay_is_plain_or_warmed_up"),),
    ),
    # The model in the paper's words
    Mutant(
        "norm-epsilon",
        BLOCKS,
        "NORM_EPS = 1e-6",
        "NORM_EPS = 1e-5",
        "LayerNorm has epsilon 1e-6",
        (nn("test_every_layer_norm_has_epsilon_1e_6"),),
    ),
    Mutant(
        "post-norm",
        BLOCKS,
        "return self.mlp(tokens + self.attention(self.norm(tokens), memory))",
        "return self.mlp(self.norm(tokens + self.attention(tokens, memory)))",
        "read and write are pre-norm",
        (nn("test_read_and_write_attend_at_the_smaller_width_to_a_memory_as_it_is"),),
    ),
    Mutant(
        "normalised-keys",
        BLOCKS,
        "self.attention(self.norm(tokens), memory)",
        "self.attention(self.norm(tokens), F.layer_norm(memory, memory.shape[-1:]))",
        "keys and values of read and write are not normalised",
        (nn("test_read_and_write_attend_at_the_smaller_width_to_a_memory_as_it_is"),),
    ),
    Mutant(
        "plain-keys-in-compute",
        BLOCKS,
        "self.attention(normed, normed)",
        "self.attention(normed, latents)",
        "keys and values of compute are normalised",
        (nn("test_compute_attends_among_normalised_latents"),),
    ),
    Mutant(
        "attention-width-of-the-query",
        BLOCKS,
        "Attention(dim, memory_dim, min(dim, memory_dim), num_heads)",
        "Attention(dim, memory_dim, dim, num_heads)",
        "read and write attend at width min(d, e)",
        (nn("test_read_and_write_attend_at_the_smaller_width_to_a_memory_as_it_is"),),
    ),
    Mutant(
        "approximate-gelu",
        BLOCKS,
        "F.gelu(self.up(self.norm(tokens)))",
        'F.gelu(self.up(self.norm(tokens)), approximate="tanh")',
        "the exact GELU",
        (nn("test_an_mlp_is_pre_norm_with_the_exact_gelu"),),
    ),
    Mutant(
        "tail-writes",
        RIN,
        "CrossLayer(d, e, heads, config.interface_mlp_ratio) if depth else None",
        "CrossLayer(d, e, heads, config.interface_mlp_ratio)",
        "a block of depth 0 only reads",
        (nn("test_a_block_of_depth_0_only_reads"),),
    ),
    Mutant(
        "shared-blocks",
        RIN,
        "nn.ModuleList([make_block(config, depth) for depth in config.compute_depth])",
        "nn.ModuleList([make_block(config, config.compute_depth[0])] * len(config.compute_depth))",
        "blocks share no weights",
        (nn("test_blocks_share_no_weights"),),
    ),
    Mutant(
        "zero-latents-skip-the-path",
        RIN,
        "return latents + self.self_conditioning(torch.zeros_like(latents) if latents_prev is None else latents_prev)",
        "return latents if latents_prev is None else latents + self.self_conditioning(latents_prev)",
        "no previous latents means zeros through the same path",
        (nn("test_no_previous_latents_are_zeros_on_the_same_path"),),
    ),
    Mutant(
        "self-conditioning-without-residual",
        EMBEDDINGS,
        "return self.norm(self.mlp(latents_prev))",
        "return self.norm(self.mlp(latents_prev) - latents_prev)",
        "Z_init + LN(Z' + MLP(LN(Z')))",
        (nn("test_previous_latents_pass_norm_mlp_residual_and_norm"),),
    ),
    Mutant(
        "self-conditioning-without-outer-norm",
        EMBEDDINGS,
        "return self.norm(self.mlp(latents_prev))",
        "return self.mlp(latents_prev)",
        "Z_init + LN(Z' + MLP(LN(Z')))",
        (nn("test_self_conditioning_is_a_no_op_before_training"),),
    ),
    Mutant(
        "order-of-latents",
        RIN,
        "tokens = [self.latents.expand(batch, -1, -1), self.noise_level(gamma)]",
        "tokens = [self.noise_level(gamma), self.latents.expand(batch, -1, -1)]",
        "learned latents, noise level, condition",
        (nn("test_latents_start_learned_then_noise_level_then_label_then_embeddings"),),
    ),
    Mutant(
        "num-latents-without-the-condition",
        RIN,
        "return self.num_latents - self.num_condition_latents",
        "return self.num_latents",
        "num_latents counts every latent",
        (nn("test_a_prediction_has_the_shape_of_the_data_and_there_are_all_latents"),),
    ),
    Mutant(
        "dropped-label-without-bias",
        EMBEDDINGS,
        "return layer(one_hot.to(layer.weight.dtype))[:, None]",
        "return (layer(one_hot.to(layer.weight.dtype)) * (labels >= 0)[:, None])[:, None]",
        "dropping a label zeroes the vector, not the token",
        (nn("test_a_dropped_label_keeps_its_token_with_the_bias"),),
    ),
    Mutant(
        "context-positions",
        RIN,
        "self.tokenizer.tokenize(condition.context, num_tokens)",
        "self.tokenizer.tokenize(condition.context)",
        "context frames have the positions that follow",
        (nn("test_tokens_are_normalised_patches_plus_positions_and_context_has_those_that_follow"),),
    ),
    Mutant(
        "context-first",
        RIN,
        "torch.cat([interface, self.tokenizer.tokenize(condition.context, num_tokens)], dim=1)",
        "torch.cat([self.tokenizer.tokenize(condition.context, num_tokens), interface], dim=1)",
        "context frames stand behind those to predict",
        (nn("test_tokens_are_normalised_patches_plus_positions_and_context_has_those_that_follow"),),
    ),
    Mutant(
        "padding-in-front",
        TOKENIZERS,
        "(0, 0, 0, 0, 0, -x.shape[2] % self.temporal_patch_size)",
        "(0, 0, 0, 0, -x.shape[2] % self.temporal_patch_size, 0)",
        "odd frames are padded at their end",
        (nn("test_patches_of_a_clip_go_frame_by_frame_and_its_end_is_padded_with_zeros"),),
    ),
    Mutant(
        "slots-padded-together",
        TOKENIZERS,
        "math.ceil(num_frames / temporal_patch_size) + math.ceil(num_context_frames / temporal_patch_size)",
        "math.ceil((self.num_frames + num_context_frames) / temporal_patch_size)",
        "noisy and clean frames are padded apart",
        (nn("test_predicted_and_context_frames_fill_temporal_patches_of_their_own"),),
    ),
    # Diffusion
    Mutant(
        "input-scale-not-applied",
        DIFFUSION,
        "clean, gamma = x_0 * config.input_scale, self.schedule(t)",
        "clean, gamma = x_0, self.schedule(t)",
        "clean data is multiplied by the input scale",
        (diffusion("test_the_loss_is_the_squared_error_in_its_space"),),
    ),
    Mutant(
        "input-scale-not-undone",
        DIFFUSION,
        "yield SamplingStep(x_0 / scale, x_t / scale, latents)",
        "yield SamplingStep(x_0, x_t, latents)",
        "results are divided by the input scale",
        (diffusion("test_samples_and_steps_on_the_way_are_in_public_units_whatever_the_input_scale"),),
    ),
    Mutant(
        "clip-to-1",
        DIFFUSION,
        "clip, space = self.config.input_scale, self.config.prediction",
        "clip, space = 1.0, self.config.prediction",
        "predictions are clipped to the input scale",
        (diffusion("test_predictions_are_clipped_to_the_input_scale"),),
    ),
    Mutant(
        "x-loss-not-divided",
        LOSS,
        "((clean - found.x_0) / config.input_scale).square()",
        "(clean - found.x_0).square()",
        "an x loss is divided by the input scale",
        (diffusion("test_the_loss_is_the_squared_error_in_its_space"),),
    ),
    Mutant(
        "x-loss-not-clipped",
        LOSS,
        "config.prediction, config.input_scale, recompute_eps=False)",
        'config.prediction, float("inf"), recompute_eps=False)',
        "an x loss has no gradient outside the clip",
        (diffusion("test_an_x_loss_has_no_gradient_outside_the_clip_and_a_v_loss_has"),),
    ),
    Mutant(
        "loss-noise-recomputed",
        LOSS,
        "config.prediction, config.input_scale, recompute_eps=False)",
        "config.prediction, config.input_scale, recompute_eps=True)",
        "an eps loss is taken on the noise as it was told",
        (diffusion("test_the_loss_is_the_squared_error_in_its_space"),),
    ),
    Mutant(
        "normalised-by-the-sample-deviation",
        DIFFUSION,
        "x_t.flatten(1).std(dim=1, correction=0)",
        "x_t.flatten(1).std(dim=1, correction=1)",
        "the input is divided by its population deviation",
        (diffusion("test_normalising_divides_what_the_network_sees_by_its_population_deviation"),),
    ),
    Mutant(
        "normalised-input-taken-for-x-t",
        DIFFUSION,
        "return estimate(prediction, x_t, gamma, space, clip",
        "return estimate(prediction, model_input, gamma, space, clip",
        "only the network sees the normalised input",
        (reference("sample_ddim_scaled"),),
    ),
    # 9. Many processes, checkpoints, updates that are not finite
    Mutant(
        "fsdp-leaves-the-average-behind",
        SHARDING,
        "fully_shard(part, reshard_after_forward=True)",
        "fully_shard(part)",
        "a sharded average goes on following the weights after it was sampled from",
        (processes("test_two_processes_have_the_losses_of_one[adamw-fsdp]"),),
    ),
    Mutant(
        "fsdp-lamb-norms-of-rows",
        OPTIM,
        "norms = sum_over_processes(norms.square()).sqrt()",
        "norms = norms * 1.0",
        "LAMB's norms are those of whole tensors",
        (processes("test_two_processes_have_the_losses_of_one[lamb-fsdp]"),),
    ),
    Mutant(
        "every-process-computes-the-same",
        SHARDING,
        "range(start + share.start, start + share.stop)",
        "range(start, start + len(share))",
        "each process has places of its own",
        (processes("test_two_processes_have_the_losses_of_one[lamb-ddp]"),),
    ),
    Mutant(
        "skipped-updates-still-decay",
        OPTIM,
        "trust_ratios(weights, moves, self.sharded) * made",
        "trust_ratios(weights, moves, self.sharded)",
        "an update that is not finite leaves the weights alone",
        (training("test_an_update_that_is_not_finite_changes_nothing_and_is_counted"),),
    ),
    Mutant(
        "skipped-updates-counted-by-lamb",
        OPTIM,
        "(1 if self.found_inf is None else 1 - self.found_inf)",
        "1",
        "bias correction counts the updates that were made",
        (training("test_an_update_that_is_not_finite_changes_nothing_and_is_counted"),),
    ),
    Mutant(
        "checkpoint-without-checksums",
        "training/checkpoint.py",
        "            if _digest(checkpoint / name).hex() != files[name]:\n",
        "            if not (checkpoint / name).exists():\n",
        "a damaged checkpoint is noticed",
        (training("test_a_damaged_checkpoint_is_set_aside_by_name_until_the_next_is_written"),),
        quick=True,
    ),
    Mutant(
        "blocks-go-on-from-the-first-frames",
        "evaluation/rollout.py",
        "clips[:, :, end - model.config.num_context_frames : end]",
        "clips[:, :, : model.config.num_context_frames]",
        "each block goes on from the last frames of the one before",
        (clips("test_each_block_goes_on_from_the_last_frames_of_the_one_before"),),
    ),
    Mutant(
        "blocks-share-their-noise",
        "diffusion/samplers.py",
        "torch.full((shape[0],), block, dtype=torch.int64, device=device)",
        "torch.full((shape[0],), 0 * block, dtype=torch.int64, device=device)",
        "each block of a longer clip has noise of its own",
        (clips("test_blocks_have_noise_of_their_own"),),
    ),
    Mutant(
        "latents-lost-between-blocks",
        "diffusion/diffusion.py",
        'x_t, latents = draw(0), options.get("latents")',
        "x_t, latents = draw(0), None",
        "the latents of a block warm-start the next",
        (clips("test_each_block_goes_on_from_the_last_frames_of_the_one_before"),),
    ),
    Mutant(
        "context-is-the-end-of-a-clip",
        "training/held_out.py",
        "return x[:, :, given:], Condition(labels=told, context=x[:, :, :given] if given else None)",
        "return x[:, :, :-given], Condition(labels=told, context=x[:, :, -given:] if given else None)",
        "the frames that are given come first",
        (clips("test_a_clip_is_what_is_given_and_what_comes_after"),),
    ),
    Mutant(
        "walls-that-swallow",
        "data/moving_shapes.py",
        "np.minimum(path, 2 * room - path)",
        "np.minimum(path, room)",
        "shapes bounce off the walls",
        ("tests/unit/test_moving_shapes.py::test_shapes_are_reflected_at_the_walls_as_light_is",),
    ),
    Mutant(
        "kernel-distance-biased",
        "evaluation/kernel.py",
        "float(_kernel(part, part).sum() - _kernel_of_equals(part).sum())",
        "float(_kernel(part, part).sum())",
        "no feature is compared with itself",
        ("tests/unit/test_metrics.py::test_kernel_distance_is_that_of_torchmetrics",),
    ),
    Mutant(
        "samples-are-their-own-neighbours",
        "evaluation/neighbourhoods.py",
        "distances[:, [_MANIFOLD, _DENSITY]].T",
        "distances[:, [_MANIFOLD - 1, _DENSITY - 1]].T",
        "the third nearest is the third of the others",
        ("tests/unit/test_metrics.py::test_neighbourhoods_are_those_of_the_published_formulas",),
    ),
    Mutant(
        "scores-of-one-class-a-part",
        "evaluation/scores.py",
        "parts = (torch.arange(len(logits)) + self.count) % _PARTS",
        "parts = (torch.arange(len(logits)) + self.count) * _PARTS // 100 % _PARTS",
        "parts of the Inception Score have all classes",
        ("tests/unit/test_metrics.py::test_inception_score_of_known_distributions",),
    ),
]

# Runs pytest on the copy, after making sure that the copy is what gets imported.
_RUN = """
import importlib.util, pathlib, sys
found = pathlib.Path(importlib.util.find_spec("rin").origin).resolve()
assert found.is_relative_to(pathlib.Path("src").resolve()), f"{found} is not the copy"
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""


def copy_code(folder):
    """The code and its tests, copied into a folder."""
    for name in ("src", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    shutil.copy(ROOT / "pyproject.toml", folder)


def run_tests(folder, tests):
    """Pytest's exit status on a copy, and what it printed."""
    environment = os.environ | {"PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1"}
    for name in ("RIN_REFERENCE_CASES", "PYTEST_ADDOPTS", "JAXTYPING_DISABLE", "PYTEST_XDIST_WORKER"):
        environment.pop(name, None)
    command = [sys.executable, "-c", _RUN, "-x", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def killer(mutant, folder):
    """The test that notices a mutant, None if none does; works on a fresh copy of the code in `folder`."""
    file = folder / "src" / "rin" / mutant.file
    code = file.read_text()
    assert code.count(mutant.original) == 1, f"{mutant.name}: its text stands {code.count(mutant.original)} times"
    file.write_text(code.replace(mutant.original, mutant.mutated))
    try:
        status, output = run_tests(folder, mutant.tests)
    finally:
        file.write_text(code)
    if status == 0:
        return None
    assert status == 1, f"{mutant.name}: pytest ended with {status}\n{output}"
    failed = [line.split()[1] for line in output.splitlines() if line.startswith("FAILED ")]
    assert failed, f"{mutant.name}: red, but no test failed\n{output}"
    return failed[0]


def main(names):
    """Runs the named mutants, or all."""
    chosen = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    survived = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        copy_code(folder)
        tests = dict.fromkeys(test for mutant in chosen for test in mutant.tests)
        status, output = run_tests(folder, tests)
        if status:
            print(f"the tests are red without any mutant:\n{output}")
            return 2
        for mutant in chosen:
            started = time.perf_counter()
            by = killer(mutant, folder)
            survived += [] if by else [mutant.name]
            took = time.perf_counter() - started
            print(f"{mutant.name}: {f'killed by {by}' if by else 'SURVIVED'} ({took:.1f} s)", flush=True)
    print(f"{len(chosen) - len(survived)} of {len(chosen)} killed")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
