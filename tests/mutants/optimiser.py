"""LAMB, the learning rate and the average of the weights."""

from tests.mutants.mutant import AVERAGE, CONFIG, OPTIM, RATES, Mutant, optim, reference

MUTANTS = [
    # LAMB
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
        '            {"params": [w for w in some if w.ndim > 1], "weight_decay": weight_decay, "adapt": True},\n',
        '            {"params": some[1:2], "weight_decay": 0.0, "adapt": True, "lr_factor": factor},\n'
        '            {"params": [w for w in some if w.ndim > 1 and w is not some[1]],\n'
        '             "weight_decay": weight_decay, "adapt": True},\n',
        "positions decay",
        (optim("test_biases_and_norms_alone_are_free_of_decay_and_ratio"),),
    ),
    Mutant(
        "lamb-latents-do-not-decay",
        OPTIM,
        '            {"params": [w for w in some if w.ndim > 1], "weight_decay": weight_decay, "adapt": True},\n',
        '            {"params": some[0:1], "weight_decay": 0.0, "adapt": True, "lr_factor": factor},\n'
        '            {"params": [w for w in some if w.ndim > 1 and w is not some[0]],\n'
        '             "weight_decay": weight_decay, "adapt": True},\n',
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
    # Learning rate
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
    # The average
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
]
