"""Runs the named mutants, or all, and prints a line each."""

import sys
import tempfile
import time
from pathlib import Path

from tests.mutants import MUTANTS
from tests.mutants.running import copy_code, killer, run_tests


def main(names):
    """Runs the named mutants, or all."""
    known = [mutant.name for mutant in MUTANTS]
    if unknown := [name for name in names if name not in known]:
        print(f"no mutant is called {unknown[0]}; there are {', '.join(known)}")
        return 2
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
