"""A CUDA device that lives in CPU memory: `cuda:0` for all that asks, and as strict as a real one about mixing.

Every tensor that was made on `cuda` or moved there says so, stays what it is in memory, and refuses to meet a tensor of
the CPU in one operation, as PyTorch does on a machine with a GPU: so every device mistake is found without one. What is
on the device is kept by storage; views, gradients and results follow. What it cannot show: the arithmetic of a GPU's
kernels, streams, and what is copied without waiting.
"""

# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
STUBS: dict[str, Any] = {
    "is_available": lambda: True,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "get_device_name": lambda device=None: "pretended",
    "get_device_capability": lambda device=None: (8, 0),
    "mem_get_info": lambda device=None: (8 * 2**30, 8 * 2**30),
    "memory_allocated": lambda device=None: 0,
    "memory_reserved": lambda device=None: 0,
    "max_memory_allocated": lambda device=None: 0,
    "reset_peak_memory_stats": lambda device=None: None,
    "synchronize": lambda device=None: None,
    "empty_cache": lambda: None,
    "_is_in_bad_fork": lambda: False,
    "manual_seed_all": lambda seed: None,
    "get_rng_state_all": list,
    "is_current_stream_capturing": lambda: False,
    "is_bf16_supported": lambda including_emulation=True: True,
}
"""All of `torch.cuda` that is answered; what else touches the device fails as in a build without CUDA."""

INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index"}
"""A tensor of the device may be indexed by tensors of the CPU."""
COPYING = {"aten::copy_", "aten::_to_copy"}
ONLY_THERE: dict[Any, Callable[..., Tensor]] = {
    torch.ops.aten.histc.default: lambda x, *args: torch.histc(x.float(), *args),
    torch.ops.aten.bmm.dtype: lambda a, b, out_dtype: torch.bmm(a.to(out_dtype), b.to(out_dtype)),
    torch.ops.aten.mm.dtype: lambda a, b, out_dtype: torch.mm(a.to(out_dtype), b.to(out_dtype)),
}
"""What has a kernel for CUDA and none for the CPU."""

_on_cuda: dict[int, StorageWeakRef] = {}


def is_cuda(tensor: Tensor) -> bool:
    """Whether a tensor is on the pretended device."""
    return tensor.layout is torch.strided and tensor.untyped_storage()._cdata in _on_cuda


def _mark(made: object, cuda: bool) -> None:
    for tensor in tree_leaves(made):
        if isinstance(tensor, Tensor) and tensor.layout is torch.strided:
            storage = tensor.untyped_storage()
            if cuda:  # a weak reference keeps the address from being used again
                _on_cuda[storage._cdata] = StorageWeakRef(storage)
            else:
                _on_cuda.pop(storage._cdata, None)
    if len(_on_cuda) > _room[0]:
        for key in [key for key, kept in _on_cuda.items() if kept.expired()]:
            del _on_cuda[key]
        _room[0] = 2 * len(_on_cuda) + 1000


_room = [1000]
_inside = [False]
"""Whether what PyTorch makes by itself, in the function that is called, is made where that function's tensors are."""


class Move(torch.autograd.Function):
    """A copy on another device; its gradient goes back to where the tensor was."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, cuda: bool) -> Tensor:
        ctx.back = is_cuda(tensor)
        moved = tensor.clone(memory_format=torch.preserve_format)
        _mark(moved, cuda)
        return moved

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        moved = gradient.clone(memory_format=torch.preserve_format)
        _mark(moved, ctx.back)
        return moved, None


class _Operations(TorchDispatchMode):
    """Below autograd: what meets in an operation, and where its results are."""

    def __torch_dispatch__(
        self, function: Any, types: object, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> object:
        name, kwargs = function._schema.name, kwargs or {}
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor) and x.layout is torch.strided]
        cuda = [is_cuda(x) for x in given]
        if any(cuda) and not all(cuda) and name not in COPYING:
            strangers = [x for x, there in zip(given, cuda, strict=True) if not there and x.dim()]
            if name in INDEXING and cuda[0]:
                indices = [x for x in args[1] if x is not None]
                strangers = [x for x in strangers if not any(x is index for index in indices)]
            if strangers:
                met = ", ".join(
                    f"{list(x.shape)} on {'cuda' if there else 'cpu'}" for x, there in zip(given, cuda, strict=True)
                )
                raise RuntimeError(
                    "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
                    f"(pretended; {name} of {met})"
                )
        made = (ONLY_THERE.get(function, function) if any(cuda) else function)(*args, **kwargs)
        if any(cuda) or (not given and _inside[-1]):
            own = {x.untyped_storage()._cdata for x in given}
            fresh = [x for x in tree_leaves(made) if isinstance(x, Tensor) and x.layout is torch.strided]
            _mark([x for x in fresh if x.untyped_storage()._cdata not in own], True)
        return made


def _wanted(device: Any) -> bool | None:
    """Whether a device that was named is the pretended one; None where none was."""
    if device is None or isinstance(device, Tensor | torch.dtype | bool):
        return None
    return True if isinstance(device, int) else torch.device(device).type == "cuda"


class _Functions(TorchFunctionMode):
    """Above autograd: what names or asks for a device."""

    def __torch_function__(
        self, function: Any, types: object, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> object:
        kwargs = dict(kwargs or {})
        name = getattr(function, "__name__", "")
        if name == "__get__":
            owner = function.__self__
            if owner is torch.Tensor.device and is_cuda(args[0]):
                return CUDA
            if owner is torch.Tensor.is_cuda:
                return is_cuda(args[0])
            if owner is torch.Tensor.is_cpu and is_cuda(args[0]):
                return False
            return function(*args, **kwargs)
        if function is torch.as_tensor and isinstance(args[0], Tensor):
            function = torch.Tensor.to
        if function in _MOVES:
            return _MOVES[function](*args, **kwargs)
        if function in _HOST_ONLY and is_cuda(args[0]):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first (pretended)")
        cuda = _wanted(kwargs.get("device"))
        if cuda:
            kwargs["device"] = CPU
        _inside.append("device" not in kwargs and any(isinstance(x, Tensor) and is_cuda(x) for x in tree_leaves(args)))
        try:
            made = function(*args, **kwargs)
        finally:
            _inside.pop()
        if cuda or (function is torch.Tensor.__deepcopy__ and is_cuda(args[0])):
            _mark(made, True)
        elif cuda is False:
            _mark(made, False)
        return made


def _to(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if args and isinstance(args[0], Tensor):
        other, args = args[0], args[1:]
        args = (CUDA if is_cuda(other) else other.device, other.dtype, *args)
    wanted = kwargs.pop("device", None)
    if args and _wanted(args[0]) is not None:
        wanted, args = args[0], args[1:]
    elif args and args[0] is None:
        args = args[1:]
    kwargs |= zip(("dtype", "non_blocking", "copy"), args, strict=False)
    kwargs = {name: value for name, value in kwargs.items() if value is not None}
    cuda = _wanted(wanted)
    if wanted is not None and not cuda and torch.device(wanted) != CPU:  # meta
        return _plain_to(tensor, wanted, **kwargs)
    out = _plain_to(tensor, **kwargs) if kwargs else tensor
    if cuda is None or cuda == is_cuda(out):
        return out
    moved: Tensor = Move.apply(out, cuda)
    return moved


_plain_to = torch.Tensor.to
_MOVES: dict[Any, Callable[..., object]] = {
    torch.Tensor.to: _to,
    torch.Tensor.cuda: lambda tensor, device=None, **kwargs: _to(tensor, CUDA),
    torch.Tensor.cpu: lambda tensor, **kwargs: _to(tensor, CPU),
    torch.Tensor.pin_memory: lambda tensor, *args: tensor,
    torch.Tensor.is_pinned: lambda tensor, *args: False,
    torch.Tensor.get_device: lambda tensor: 0 if is_cuda(tensor) else -1,
}
_HOST_ONLY: set[Any] = {torch.Tensor.numpy, torch.Tensor.__array__}


@contextmanager
def pretend_cuda() -> Iterator[None]:
    """A CUDA device is there."""
    with ExitStack() as stack:
        for name, answer in STUBS.items():
            stack.enter_context(patch.object(torch.cuda, name, answer))
        stack.enter_context(_Operations())
        stack.enter_context(_Functions())
        yield
