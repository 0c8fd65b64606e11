"""How far edits move one token."""

from __future__ import annotations

import torch
from torch import Tensor

from writesae.causal.patching import Edits, patched_logits
from writesae.hosts.fork import NativeRun
from writesae.types import Timing


def token_changes(
    run: NativeRun, edits: Edits, tokens: Tensor, timing: Timing, log_probability: bool
) -> tuple[Tensor, Tensor]:
    """The change of each row's token (`[R]`) by every edit, `[R, C]`: of its log probability, or of its logit. And the
    largest change of any token between two native rows, which is rounding, `[R]`. Float64, on the CPU."""
    rows, conditions = edits.weight.shape[:2]
    change = torch.zeros(rows, conditions, dtype=torch.float64)
    floor = torch.zeros(rows, dtype=torch.float64)
    for scored in patched_logits(run, edits, timing):
        native, patched, again = scored.native[:, 0], scored.patched[:, :, 0], scored.again[:, 0]
        if log_probability:
            native, patched, again = (x.log_softmax(-1) for x in (native, patched, again))
        which = scored.which.cpu()
        own = tokens[which].to(native.device)[:, None]
        floor[which] = (again - native).abs().amax(-1).double().cpu()
        moved = patched.gather(2, own[:, None].expand(-1, conditions, 1))[..., 0].double()
        change[which] = (moved - native.gather(1, own).double()).cpu()
    return change, floor
