"""The paper's probes of editing as functions with their statistics."""

from writesae.evals.old.probes.amplification import (
    AmplificationConfig,
    AmplificationRow,
    AmplificationSummary,
    amplification,
    class_features,
    tokens_matching,
)
from writesae.evals.old.probes.erasure import ErasureConfig, ErasureRow, ErasureSummary, erasure
from writesae.evals.old.probes.installs import InstallRow, InstallSummary, InstallSweep, install_sweep
from writesae.evals.old.probes.names import NamesConfig, NamesRow, NamesSummary, name_tokens, proper_nouns
from writesae.evals.old.probes.sign import SignConfig, SignRow, SignSummary, sign_test
from writesae.evals.old.probes.texts import draw_texts, open_host

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
