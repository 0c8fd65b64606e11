"""Where rounding begins in whole passes: a native run once more, nudged by one unit in the last place.

A run that is repeated as it is comes out equal to the bit, and says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from writesae.hosts import Host, KernelCall, KernelResult, Tap
from writesae.hosts.fork import nudged
from writesae.types import Site


def nudged_logits(host: Host, tokens: Tensor, sites: Sequence[Site], keep: int | Tensor = 0) -> Tensor:
    """Native logits of texts `[B, T]`, as `Host.logits` gives them, with these heads' outputs nudged at every token."""

    def after(call: KernelCall, result: KernelResult) -> KernelResult:
        output = result.output.clone()
        for site in sites:
            if site.layer == call.layer:
                output[:, :, site.head] = nudged(output[:, :, site.head])
        return result._replace(output=output)

    return host.logits(tokens, Tap(after=after), keep)
