"""Choose an operation's implementation by the device of its tensors, at every call.

transformers chooses at import, by what is installed: with a GPU package importable, its models on a CPU call kernels
that cannot run there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps

from torch import Tensor, nn

from writesae.hosts.intercept import patched
from writesae.hosts.internals import mended, torch_reference

Operation = Callable[..., object]

BESIDE_THE_RECURRENCE = ("causal_conv1d_fn", "causal_conv1d_update")
"""What transformers' mixers call from the `causal_conv1d` package where it is installed."""


def routed(on_cpu: Operation, original: Operation) -> Operation:
    """`on_cpu` for CPU tensors, `original` for any other."""

    @wraps(original)
    def call(*args: object, **kwargs: object) -> object:
        first = next(x for x in (*args, *kwargs.values()) if isinstance(x, Tensor))
        return (on_cpu if first.device.type == "cpu" else original)(*args, **kwargs)

    return call


@contextmanager
def transformers_on_cpu(model: nn.Module) -> Iterator[None]:
    """Make a transformers model's convolutions run where its tensors are, and mend what its release has wrong; the
    recurrence's kernels route themselves."""
    with ExitStack() as stack:
        for module in model.modules():
            if (mend := mended(module)) is not None:
                stack.enter_context(patched(module, "forward", mend))
        for name in sorted({type(module).__module__ for module in model.modules()}):
            for symbol in BESIDE_THE_RECURRENCE:
                if symbol in vars(sys.modules[name]):
                    stack.enter_context(patched(sys.modules[name], symbol, _by_device))
        yield


def _by_device(original: Operation) -> Operation:
    return routed(torch_reference(original), original)
