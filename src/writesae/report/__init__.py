"""Result files of a run -> one self-contained HTML page. Reads files only; never a model, a store or a dictionary."""

from writesae.report.render import write_report

__all__ = ["write_report"]
