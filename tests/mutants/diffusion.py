"""Corruption, the loss and what is predicted."""

from tests.mutants.mutant import DIFFUSION, GUIDANCE, LOSS, PARAMETRISATION, REVERSE, Mutant, diffusion, reference

MUTANTS = [
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
        REVERSE,
        "yield SamplingStep(state.x_0 / self._scale, state.x_t / self._scale, state.carried.latents)",
        "yield SamplingStep(state.x_0, state.x_t, state.carried.latents)",
        "results are divided by the input scale",
        (diffusion("test_samples_and_steps_on_the_way_are_in_public_units_whatever_the_input_scale"),),
    ),
    Mutant(
        "clip-to-1",
        GUIDANCE,
        "clip, space = self._config.input_scale, self._config.prediction",
        "clip, space = 1.0, self._config.prediction",
        "predictions are clipped to the input scale",
        (diffusion("test_predictions_are_clipped_to_the_input_scale"),),
    ),
    Mutant(
        "x-loss-not-divided",
        LOSS,
        "((clean - estimated.x_0) / config.input_scale).square()",
        "(clean - estimated.x_0).square()",
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
        "an eps loss is taken on the noise as it was drawn",
        (diffusion("test_the_loss_is_the_squared_error_in_its_space"),),
    ),
    Mutant(
        "normalised-by-the-sample-deviation",
        PARAMETRISATION,
        "x_t.flatten(1).std(dim=1, correction=0)",
        "x_t.flatten(1).std(dim=1, correction=1)",
        "the input is divided by its population deviation",
        (diffusion("test_normalising_divides_what_the_network_sees_by_its_population_deviation"),),
    ),
    Mutant(
        "normalised-input-taken-for-x-t",
        GUIDANCE,
        "estimated = estimate(prediction, x_t, level, space, clip",
        "estimated = estimate(prediction, network_input(x_t, self._config.normalise_input), level, space, clip",
        "only the network sees the normalised input",
        (reference("sample_ddim_scaled"),),
    ),
]
