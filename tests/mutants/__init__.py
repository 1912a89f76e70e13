"""Mutants: each undoes one detail that ports of the model get wrong, and a test must see it.

    python -m tests.mutants [NAME ...]

copies the code, changes one place, runs the tests that should notice, and prints a line a mutant. A mutant that no
test notices makes the exit status 1.
"""

from tests.mutants import (
    data,
    diffusion,
    dropout,
    elastic,
    initial_weights,
    interop,
    measures,
    network,
    optimiser,
    runs,
    sampling,
)

MUTANTS = [
    *initial_weights.MUTANTS,
    *optimiser.MUTANTS,
    *network.MUTANTS,
    *sampling.MUTANTS,
    *elastic.MUTANTS,
    *dropout.MUTANTS,
    *diffusion.MUTANTS,
    *runs.MUTANTS,
    *data.MUTANTS,
    *interop.MUTANTS,
    *measures.MUTANTS,
]
