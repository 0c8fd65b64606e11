"""The one place where a model is touched: its recurrence kernel's call, inside a context manager.

Modelling code looks its kernel up by name in its own module on every call. `tap` replaces that name by a wrapper
and puts a pair of forward hooks on each mixer, so that the wrapper knows which layer is calling. A call that
belongs to no tapped mixer passes through: other models of the same class, and other threads, notice nothing.
On leaving the context, exceptions included, every symbol and hook is as it was.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial, wraps
from typing import TypeVar, cast

from torch import Tensor, nn

from writesae.hosts.internals import torch_reference
from writesae.hosts.kernels import Arguments, Kernel, KernelResult
from writesae.recurrence import Stream


@dataclass(frozen=True)
class KernelCall:
    """One kernel call of one layer."""

    layer: int
    """Model layer index."""
    kernel: Kernel
    arguments: Arguments

    @cached_property
    def stream(self) -> Stream:
        """The effective stream of this call, float32, `[B, T, H, d]`."""
        return self.kernel.stream(self.arguments)

    @cached_property
    def initial(self) -> Tensor | None:
        """The state before this call's first token, `[B, H, K, V]`; None where it is empty."""
        return self.kernel.initial(self.arguments)


@dataclass(frozen=True)
class Tap:
    """What to do at each kernel call: look before it runs, take its place, and look at or change what it returns."""

    before: Callable[[KernelCall], None] | None = None
    instead: Callable[[KernelCall], KernelResult | None] | None = None
    """The call's outputs and final state, where the kernel need not run; None lets it run."""
    after: Callable[[KernelCall, KernelResult], KernelResult] | None = None


@dataclass(frozen=True)
class Mixer:
    """One recurrent module of a model and the kernels it may call."""

    layer: int
    module: nn.Module
    kernels: tuple[Kernel, ...]


class _Frames(threading.local):
    """The tapped mixers that this thread is inside of, outermost tap first."""

    def __init__(self) -> None:
        self.stack: list[tuple[int, Tap]] = []


_frames = _Frames()
_lock = threading.Lock()
_patched: dict[tuple[int, str], tuple[object | None, int]] = {}
"""(owner, name) -> what the owner itself had under that name, and how many contexts are open."""


def _wrap(kernel: Kernel, original: Callable[..., object]) -> Callable[..., object]:
    reference = torch_reference(original) if kernel.on_cpu is None else kernel.on_cpu

    def call(*args: object, **kwargs: object) -> object:
        first = next(x for x in (*args, *kwargs.values()) if isinstance(x, Tensor))
        run = reference if first.device.type == "cpu" else original
        if not _frames.stack:
            return run(*args, **kwargs)
        frames = list(_frames.stack)
        arguments = kernel.name_arguments(args, kwargs)
        call = KernelCall(frames[-1][0], kernel, arguments)
        for _, tap in frames:
            if tap.before is not None:
                tap.before(call)
        made = next((x for _, tap in frames if tap.instead is not None and (x := tap.instead(call)) is not None), None)
        if made is None:
            if any(tap.before is not None or tap.after is not None for _, tap in frames):
                call.initial  # noqa: B018  read before the kernel runs: some kernels change their state in place
            returned = run(*args, **kwargs)
            if all(tap.after is None for _, tap in frames):
                return returned
            native = result = kernel.unpack(arguments, returned)
        else:
            emitted = kernel.emit(arguments, made.output)
            returned = kernel.give(arguments, emitted, made.final)
            native = result = made._replace(emitted=emitted)
        for _, tap in frames:
            if tap.after is not None:
                result = tap.after(call, result)
        return returned if result is native else kernel.repack(arguments, returned, native, result)

    return call


@contextmanager
def patched(owner: object, name: str, wrap: Callable[[Callable[..., object]], object]) -> Iterator[None]:
    """Replace `owner.name` (a module's function, or one object's method) by `wrap` of it.

    Several contexts, in any threads, share one replacement; the last to leave puts back what was there.
    """
    key = (id(owner), name)
    with _lock:
        if key not in _patched:
            own = vars(owner).get(name)
            setattr(owner, name, wrap(getattr(owner, name)))
            _patched[key] = (own, 0)
        own, users = _patched[key]
        _patched[key] = (own, users + 1)
    try:
        yield
    finally:
        with _lock:
            own, users = _patched.pop(key)
            if users > 1:
                _patched[key] = (own, users - 1)
            elif own is None:
                delattr(owner, name)
            else:
                setattr(owner, name, own)


@contextmanager
def tap(mixers: Mapping[int, Mixer], what: Tap | None) -> Iterator[None]:
    """Run `what` at every kernel call of these mixers made by this thread.

    With None nothing is watched; the kernels are still routed by device, which is what a model on the CPU needs
    where a GPU-only kernel package is installed.
    """
    with ExitStack() as stack:
        symbols = {(type(m.module).__module__, k.symbol): k for m in mixers.values() for k in m.kernels}
        for (module_name, symbol), kernel in symbols.items():
            stack.enter_context(patched(sys.modules[module_name], symbol, partial(_wrap, kernel)))
        if what is not None:
            depth = len(_frames.stack)
            stack.callback(lambda: _frames.stack.__delitem__(slice(depth, None)))
            for mixer in mixers.values():
                enter, leave = _hooks(mixer.layer, what)
                stack.callback(mixer.module.register_forward_pre_hook(enter).remove)
                stack.callback(mixer.module.register_forward_hook(leave, always_call=True).remove)
        yield


H = TypeVar("H", bound=Callable[..., object])


def own_thread(hook: H) -> H:
    """A forward hook that does nothing in other threads than its maker's: they may be running the same model."""
    owner = threading.get_ident()

    @wraps(hook)
    def mine(*args: object, **kwargs: object) -> object:
        return hook(*args, **kwargs) if threading.get_ident() == owner else None

    return cast(H, mine)


def _hooks(
    layer: int, what: Tap
) -> tuple[Callable[[nn.Module, object], None], Callable[[nn.Module, object, object], None]]:
    def enter(module: nn.Module, inputs: object) -> None:
        _frames.stack.append((layer, what))

    def leave(module: nn.Module, inputs: object, output: object) -> None:
        if _frames.stack:
            _frames.stack.pop()

    return own_thread(enter), own_thread(leave)
