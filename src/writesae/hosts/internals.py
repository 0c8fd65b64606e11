"""What transformers, torch and accelerate do not promise: each name that a release changed, each attribute of theirs.

Nothing else in the library touches them; `tests/hosts/test_internals.py` says which release changed what.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import cache, wraps
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer, LinearAttentionLayer
from transformers.utils.hub import cached_file

from writesae.hosts.versions import installed_version, release

T = TypeVar("T")
CACHE_NAMES = ("cache", "past_key_values", "cache_params")
"""A model's cache, as an argument and in its output: 5.24 renamed the other two to the first."""

SINCE = {
    "Qwen4ExpForCausalLM": (5, 16),
    "Glm5NextForConditionalGeneration": (5, 16),
    "KimiLinearForCausalLM": (5, 17),
    "BailingHybridForCausalLM": (5, 20),
}
"""Classes that are younger than the oldest release that is supported."""


def cache_keyword(model: nn.Module) -> str:
    """The argument under which a model's forward takes its cache."""
    takes = inspect.signature(model.forward).parameters
    return next(name for name in CACHE_NAMES if name in takes)


def generates(model: nn.Module) -> bool:
    """Whether `generate` can hand a model its cache: since 5.24 it has one name for it, which fla 0.6 and rwkv7-hf 0.9
    do not know."""
    return release() < (5, 24) or cache_keyword(model) == "cache"


def find_cache(names: Mapping[str, object] | object) -> Cache | None:
    """The cache among the arguments of a call, under any release's name, or in a model's output."""
    held = names if isinstance(names, Mapping) else {name: getattr(names, name, None) for name in CACHE_NAMES}
    return next((found for name in CACHE_NAMES if isinstance(found := held.get(name), Cache)), None)


class _StatesOnly(DynamicCache):
    """A cache without attention: 5.15 to 5.24 refuse to say how long its text is, which classes made for hybrids ask.

    Nothing of theirs then depends on the answer: there is no attention to mask, and no position enters a recurrence.
    """

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        return query_length, 0


def new_cache(model: PreTrainedModel) -> Cache:
    """An empty transformers cache for a model."""
    kept = DynamicCache(config=model.config.get_text_config())
    attends = any(isinstance(part, CacheLayerMixin) for part in kept.layers)
    return kept if attends else _StatesOnly(config=model.config.get_text_config())


def recurrent_state(kept: Cache, layer: int) -> Tensor | None:
    """The live state of a layer in a transformers cache; None before the first call. 5.21 has a public reader."""
    return cast(LinearAttentionLayer, kept.layers[layer]).recurrent_states[0]


def hold_windows(part: LinearAttentionLayer, windows: Tensor) -> None:
    """Let a cache's layer have this very tensor `[R, channels, width]` as the last inputs of its convolution."""
    part.conv_states[0], part.conv_kernel_size[0] = windows, windows.shape[-1]
    part.is_conv_states_initialized[0] = part.has_previous_state[0] = True


def hold_state(part: LinearAttentionLayer, state: Tensor) -> None:
    """Let a cache's layer have this very tensor as its state, which no call changes."""
    part.recurrent_states[0] = state
    part.is_recurrent_states_initialized[0] = True
    part.update_recurrent_state = lambda after, *_, **__: after  # type: ignore[method-assign]


def watch_convolution(part: LinearAttentionLayer, seen: Callable[[Tensor, int], None]) -> None:
    """Hand over the whole input `[B, channels, T]` of a layer's convolution, and the convolution's width."""
    update: Callable[..., Tensor] = part.update_conv_state

    def keep(inputs: Tensor, *args: object, **kwargs: object) -> Tensor:
        kept = update(inputs, *args, **kwargs)
        seen(inputs, int(cast(int, part.conv_kernel_size[0])))
        return kept

    part.update_conv_state = keep  # type: ignore[method-assign, assignment]


def keeps_known(part: object, tokens: int) -> bool:
    """Whether what a cache's layer keeps of so many tokens is a convolution's window, or every key and value: not a
    sliding window of them, and nothing beside them."""
    if isinstance(part, DynamicSlidingWindowLayer):
        return tokens < part.sliding_window
    if isinstance(part, LinearAttentionLayer):
        return len(part.conv_states) == 1
    return not isinstance(part, DynamicLayer) or type(part) is DynamicLayer


def hold_attention(part: DynamicLayer, whole: tuple[Tensor, Tensor], past: int) -> None:
    """Give an attention layer of a cache keys and values `[R, H, past + steps, d]`; the next call fills the last."""

    def update(keys: Tensor, values: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        for room, x in zip(whole, (keys, values), strict=True):
            room[:, :, past:] = x
        return whole

    part.lazy_initialization(*whole)
    part.keys, part.values = (room[:, :, :past] for room in whole)
    if isinstance(part, DynamicSlidingWindowLayer):
        part.cumulative_length = past
    part.update = update  # type: ignore[method-assign, assignment]


def changes(model: nn.Module) -> object:
    """Where a model's tensors lie and how often each was changed in place: equal as long as nobody touches them.

    Those that accelerate keeps elsewhere between calls are others every time, and are left out.
    """
    held = ((name, x) for name, x in model.state_dict().items() if isinstance(x, Tensor) and not x.is_meta)
    return [(name, x.data_ptr(), x._version) for name, x in held]


def execution_device(module: nn.Module) -> torch.device:
    """Where accelerate runs a module whose weights are elsewhere between calls."""
    return torch.device(cast(str, module._hf_hook.execution_device))  # type: ignore[union-attr]


def repository_file(where: str, name: str, revision: str | None, cache_only: bool, required: bool) -> str | None:
    """Where a file of a folder or Hub repository is on this machine; None where it has none that is not required."""
    return cached_file(
        where, name, revision=revision, local_files_only=cache_only, _raise_exceptions_for_missing_entries=required
    )


def torch_reference(symbol: Callable[..., object]) -> Callable[..., object]:
    """The pure-torch function behind a kernel symbol.

    transformers picks an installed GPU package at import time whatever the device, so on CPU tensors the symbol
    itself may be unusable; the torch fallback is what `functools.wraps` keeps. The hub `kernels` package turns
    the symbol into a module whose `forward` closes over that function.
    """
    if isinstance(symbol, nn.Module):
        forward = type(symbol).forward
        names, cells = forward.__code__.co_freevars, forward.__closure__ or ()
        symbol = dict(zip(names, (cell.cell_contents for cell in cells), strict=True))["func"]
    return cast(Callable[..., object], inspect.unwrap(symbol))


@cache
def rounds_unit_vectors(device: str) -> bool:
    """Whether the gated delta rule normalises queries and keys before it widens them: torch's own did until 5.17."""
    return release() < (5, 17) and (device == "cpu" or installed_version("fla") is None)


def mended(module: nn.Module) -> Callable[[Callable[..., object]], Callable[..., object]] | None:
    """What to wrap a module's `forward` in where its release has it wrong; None where it is right.

    Falcon-H1's gated norm loses the time axis of a single token until 5.23, which mixes the rows of a batch.
    """
    return _one_token if type(module).__name__ == "FalconH1RMSNormGated" and release() < (5, 23) else None


def _one_token(forward: Callable[..., object]) -> Callable[..., object]:
    @wraps(forward)
    def call(x: Tensor, gate: Tensor | None = None) -> object:
        if x.ndim != 3 or x.shape[1] != 1:
            return forward(x, gate)
        return cast(Tensor, forward(x.squeeze(1), None if gate is None else gate.squeeze(1))).unsqueeze(1)

    return call


def uncompiled(module: nn.Module) -> Iterator[tuple[str, object]]:
    """What stands in the way of running a compiled module as it was written: names of its attributes, and what to have
    there instead."""
    if vars(module).get("_compiled_call_impl") is not None:  # `module.compile()`
        yield "_compiled_call_impl", None
    plain = getattr(vars(module).get("forward"), "_torchdynamo_orig_callable", None)
    if plain is not None:  # `module.forward = torch.compile(module.forward)`
        yield "forward", plain


BRIDGED = "_original_component"
"""Under this name TransformerLens keeps the module that a bridge stands for."""


def without_bridges(model: nn.Module) -> nn.Module:
    """The model that TransformerLens put its bridges into, without them: other module objects around the same tensors,
    as a bridge runs a mixer's steps itself, without its kernel."""
    if not any(BRIDGED in name for name, _ in model.named_modules()):
        return model

    def plain(module: nn.Module) -> nn.Module:
        while BRIDGED in module._modules:
            module = cast(nn.Module, module._modules[BRIDGED])
        own = copy.copy(module)
        hooks = {name: type(x)() for name, x in vars(module).items() if "_hooks" in name and isinstance(x, dict)}
        children = {name: child and plain(child) for name, child in module._modules.items()}
        vars(own).update(hooks, _modules=children)
        return own

    return plain(model)
