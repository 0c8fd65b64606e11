"""Names of devices, with one meaning everywhere."""

from __future__ import annotations

import torch

from writesae.errors import InputError


def choose_device(name: str | None) -> torch.device:
    """The device of a name: `cpu` (also None), `cuda`, `cuda:1`, or `auto`, a CUDA device where there is one.

    Raises InputError for one that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name or "cpu")
    except RuntimeError:
        raise InputError(f"there is no device {name!r}: give cpu, cuda, cuda:1, mps or auto") from None
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device {name!r} cannot be used: {reason}; give cpu, cuda, cuda:1, mps or auto") from None
    return device
