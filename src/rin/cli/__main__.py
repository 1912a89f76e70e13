"""`python -m rin.cli` is `rin`."""

from rin.cli import main

main()
