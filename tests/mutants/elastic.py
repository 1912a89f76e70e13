"""Elastic networks: which latents are left out, of what the rest is carried, and that all processes agree."""

from tests.mutants.mutant import GUIDANCE, RIN, Mutant


def elastic(name):
    return f"tests/unit/test_elastic.py::{name}"


MUTANTS = [
    Mutant(
        "elastic-leaves-out-the-first-latents",
        RIN,
        "self.latents[:num_learned]",
        "self.latents[-num_learned:]",
        "the first learned latents are those that stay",
        (elastic("test_with_fewer_latents_it_is_the_network_of_the_first_ones"),),
    ),
    Mutant(
        "elastic-new-latents-before-the-old",
        RIN,
        "F.pad(learned, (0, 0, 0, num_learned - given))",
        "F.pad(learned, (0, 0, num_learned - given, 0))",
        "carried latents stay in their places when there are more",
        (elastic("test_carried_latents_lose_the_last_learned_ones_and_gain_zeros_and_keep_the_conditions"),),
    ),
    Mutant(
        "elastic-number-by-process",
        "training/batch_loss.py",
        "choice(self.seed, step, len(self.latent_counts)",
        "choice(self.seed + self.parts[0].start, step, len(self.latent_counts)",
        "every process works with as many latents",
        (elastic("test_every_process_and_part_of_an_update_works_with_as_many"),),
    ),
    Mutant(
        "elastic-never-all",
        "training/batch_loss.py",
        "step % self.all_latents_every == 0",
        "step % self.all_latents_every == self.all_latents_every",
        "every second update works with all latents",
        (elastic("test_every_process_and_part_of_an_update_works_with_as_many"),),
    ),
    Mutant(
        "elastic-guide-from-the-latents-of-the-guided",
        GUIDANCE,
        'num_guide_latents is not None or config.guidance_latents == "own"',
        'config.guidance_latents == "own"',
        "the pass that guides goes on from its own latents",
        (elastic("test_fewer_latents_guide_under_the_same_condition_with_latents_of_their_own"),),
    ),
]
