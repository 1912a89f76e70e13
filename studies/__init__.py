"""Studies of what makes a RIN: CIFAR-10 at 16x16 in minutes a run on a CPU, several seeds of each.

    python -m studies --data path/to/cifar10 --features cifar10_features.pt --out runs/studies
    python -m studies --data path/to/cifar10 --features cifar10_features.pt --out runs/studies --scale gpu
    python -m studies.report runs/studies --plot studies.png

The first runs what `--out` does not hold yet, seed by seed; it can be cut off at any time and goes on, and several of
it share the work of one folder. The second does so at 32x32 with the `cifar10` preset, its schedule cut to
`--updates`, and all of the studies; `--scale gpu-third` with a network of a third of its size. The third prints the
tables and draws them; `--curves curves.png` draws losses over CPU time.

1. Latent self-conditioning: rates 0, 0.5 and 0.9 (the base); 0 also with about the training time that 0.9 takes.
2. Steps and samplers, on the base's runs: 10 to 100 steps (1000 on a GPU), DDPM and DDIM, latents carried and cold;
   with `--studies 2 7` at equal CPU time 10 and 25 evaluations, DPM-Solver++ 2M and Heun too.
3. Details that ports get wrong, each undone alone: attention's initial weights as plain Glorot matrices; dropout and
   stochastic depth of 0.1, which the released CIFAR-10 configuration has, put in; and, beside a base of their own that
   has LAMB for its optimiser, LAMB's ratio clamped to 10, or left out, at a tenth or a third of the rate, as
   AdamW has it.
4. Predictions, training schedules and the input's scale. Held-out losses of other inputs and in
   other spaces do not compare.
5. DDPM's U-Net (diffusers) and JiT, a transformer over the pixels' patches, in the RIN's place: same data, loss,
   sampler and trainer, and as many updates as fit into the time of the base's (timed in turns before the first run).
   Both have AdamW; a RIN with AdamW stands beside them.
6. The number of latents; one deep block and many shallow ones; blocks that only read, but for the last.
7. What pays in minutes on a CPU, by equal CPU time of one thread (`--scale cpu-16-300s` and so on, OMP_NUM_THREADS=1):
   a RIN whose patches mix with their neighbours beside one whose do not, one of larger patches and one with more
   estimates; and beside DDPM's U-Net and JiT of about its size, each at the best of three rates.
8. Elastic latents, at the scales of equal CPU time: one network that has learned to work with 3 to 16 latents, drawing
   with 3, 5, 9 and 16, beside networks made with so many alone, each in the same time; and the same where patches
   meet in the latents alone, without mixing, beside a network of 3 and study 7's of 16. Both also as one that draws its
   number in every update, in place of every second one.
9. Growth: half of the updates with 5 latents and the rest with all 16, beside three quarters of the updates.

The rule, written down before anything ran. What counts is the Frechet distance of 1,000 samples (seed 0, classes
evenly; 10,000 on a GPU) to the training set, through the given network, of 16x16 at twice the size; held-out loss
stands beside it. Differences to its base are paired by seed: same data, noise and, where the arm leaves them alone,
initial weights. With d their mean and h the half width of its 95 % interval (Student's t), an arm is **better** or
**worse** if the interval leaves out 0; otherwise there is **no effect above** |d| + h. One comparison in twenty is
expected to be wrong.
"""
