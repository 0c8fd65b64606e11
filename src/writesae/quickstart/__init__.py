"""The whole chain on one host: audit, capture, train both targets, test both, describe their atoms, report."""

from writesae.quickstart.config import QuickstartConfig

__all__ = ["QuickstartConfig"]
