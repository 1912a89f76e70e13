"""Sampling and guidance."""

from tests.mutants.mutant import DIFFUSION, PARAMETRISATION, SAMPLERS, Mutant, diffusion

MUTANTS = [
    # Sampling
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
        "return estimate(prediction, x_t, gamma, space, clip, recompute_eps=True), conditioned.latents",
        "return estimate(prediction, x_t, gamma, space, clip, recompute_eps=False), conditioned.latents",
        "the noise is recomputed after clipping",
        (diffusion("test_noise_is_recomputed_after_clipping_in_every_step"),),
        quick=True,
    ),
    Mutant(
        "sampling-not-clipped",
        PARAMETRISATION,
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
    # Guidance
    Mutant(
        "guidance-mixes-with-1-minus-g",
        DIFFUSION,
        "prediction = prediction + guidance * (prediction - _in_float32(unconditioned.prediction))",
        "prediction = guidance * prediction + (1 - guidance) * _in_float32(unconditioned.prediction)",
        "out_c + g (out_c - out_u)",
        (diffusion("test_guidance_adds_g_times_the_difference"),),
    ),
    Mutant(
        "guidance-second-pass-from-the-firsts-latents",
        DIFFUSION,
        "(condition or Condition()).null(), latents)",
        "(condition or Condition()).null(), conditioned.latents)",
        "both passes start from the same latents",
        (diffusion("test_both_passes_of_guidance_start_from_the_latents_of_the_conditional_one"),),
    ),
    Mutant(
        "guidance-carries-unconditional-latents",
        DIFFUSION,
        "recompute_eps=True), conditioned.latents",
        "recompute_eps=True), unconditioned.latents if guidance else conditioned.latents",
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
]
