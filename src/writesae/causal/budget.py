"""Bridge until the real one lands."""

BUDGET = 1.0
