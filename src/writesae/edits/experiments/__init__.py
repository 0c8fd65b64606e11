"""The paper's probes of editing as functions with their statistics."""

from writesae.edits.experiments.amplification import (
    Amplification,
    AmplificationConfig,
    AmplificationRow,
    amplification,
    class_features,
    tokens_matching,
)
from writesae.edits.experiments.erasure import Erasure, ErasureConfig, ErasureRow, erasure
from writesae.edits.experiments.installs import InstallResult, InstallRow, InstallSweep, install_sweep
from writesae.edits.experiments.sign import SignConfig, SignRow, SignTest, sign_test

__all__ = [
    "Amplification",
    "AmplificationConfig",
    "AmplificationRow",
    "Erasure",
    "ErasureConfig",
    "ErasureRow",
    "InstallResult",
    "InstallRow",
    "InstallSweep",
    "SignConfig",
    "SignRow",
    "SignTest",
    "amplification",
    "class_features",
    "erasure",
    "install_sweep",
    "sign_test",
    "tokens_matching",
]
