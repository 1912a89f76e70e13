"""Many processes, checkpoints and updates that are not finite."""

from tests.mutants.mutant import OPTIM, SHARDING, Mutant, clips, diffusion, processes, training

MUTANTS = [
    # Many processes, checkpoints, updates that are not finite
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
        "sampling/drawing.py",
        "clips[:, :, end - self.kind.num_context_frames : end]",
        "clips[:, :, : self.kind.num_context_frames]",
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
        "given-latents-lost",
        "diffusion/reverse_process.py",
        "State(x_t, Carried(self._latents), torch.zeros_like(x_t))",
        "State(x_t, Carried(), torch.zeros_like(x_t))",
        "sampling starts from the latents that it is given",
        (diffusion("test_the_first_step_starts_from_given_latents"),),
    ),
    Mutant(
        "context-is-the-end-of-a-clip",
        "core/kind.py",
        "context = x[:, :, : self.num_context_frames] if self.num_context_frames else None",
        "context = x[:, :, -self.num_context_frames :] if self.num_context_frames else None",
        "the frames that are given come first",
        (clips("test_a_clip_is_what_is_given_and_what_comes_after"),),
    ),
]
