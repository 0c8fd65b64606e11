"""The paper's probes of editing as functions with their statistics."""

from writesae.edits.experiments.amplification import (
    AmplificationConfig,
    AmplificationRow,
    AmplificationSummary,
    amplification,
    class_features,
    tokens_matching,
)
from writesae.edits.experiments.erasure import ErasureConfig, ErasureRow, ErasureSummary, erasure
from writesae.edits.experiments.installs import InstallRow, InstallSummary, InstallSweep, install_sweep
from writesae.edits.experiments.names import NamesConfig, NamesRow, NamesSummary, name_tokens, proper_nouns
from writesae.edits.experiments.sign import SignConfig, SignRow, SignSummary, sign_test
from writesae.edits.experiments.texts import draw_texts, open_host

__all__ = [
    "AmplificationConfig",
    "AmplificationRow",
    "AmplificationSummary",
    "ErasureConfig",
    "ErasureRow",
    "ErasureSummary",
    "InstallRow",
    "InstallSummary",
    "InstallSweep",
    "NamesConfig",
    "NamesRow",
    "NamesSummary",
    "SignConfig",
    "SignRow",
    "SignSummary",
    "amplification",
    "class_features",
    "draw_texts",
    "erasure",
    "install_sweep",
    "name_tokens",
    "open_host",
    "proper_nouns",
    "sign_test",
    "tokens_matching",
]
