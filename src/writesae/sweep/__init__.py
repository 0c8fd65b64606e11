"""A grid of training runs on one or several hosts: captured once a host, trained, tested, one table and one page."""

from writesae.sweep.config import Sweep, read_sweep

__all__ = ["Sweep", "read_sweep"]
