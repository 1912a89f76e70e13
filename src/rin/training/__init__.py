"""Training: the loop, the optimiser, the averaged weights, checkpoints and logs."""
