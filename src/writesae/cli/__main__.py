"""`python -m writesae.cli`, the same as `writesae`."""

from writesae.cli import main

main()
