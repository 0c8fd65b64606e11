"""`python -m writesae` is the `writesae` command."""

from writesae.cli import main

main()
