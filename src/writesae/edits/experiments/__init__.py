"""The paper's probes of editing as functions with their statistics."""

from writesae.edits.experiments.installs import InstallResult, InstallRow, InstallSweep, install_sweep
from writesae.edits.experiments.sign import SignConfig, SignRow, SignTest, sign_test

__all__ = [
    "InstallResult",
    "InstallRow",
    "InstallSweep",
    "SignConfig",
    "SignRow",
    "SignTest",
    "install_sweep",
    "sign_test",
]
