"""What a package's cache keeps beside recurrent states, recorded over a whole run and put back at any token of it.

Short convolutions keep their last inputs, token shifts the last token, attention its keys and values. The recurrent
states themselves are never in these caches: a forked run computes its reads of them elsewhere (`fork.py`), so that
their place holds a tensor of the right shape that occupies no memory.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.cache_utils import DynamicLayer, LinearAttentionLayer

from writesae.hosts import mamba1
from writesae.hosts.cache_kinds import FLA, RWKV7_HF, TRANSFORMERS, CacheKind
from writesae.hosts.host import Host
from writesae.hosts.intercept import own_thread
from writesae.hosts.internals import hold_attention, hold_state, hold_windows, keeps_known, watch_convolution

Name = tuple[int, str]
"""(layer, what)."""


@dataclass(frozen=True)
class Memory:
    """Recorded over one native run of passages `[B, T]`, from one layer up."""

    series: dict[Name, Tensor] = field(default_factory=dict)
    """Inputs of convolutions and token shifts, keys and values: `[B, T, ...]`."""
    shapes: dict[Name, tuple[int, ...]] = field(default_factory=dict)
    """The form in which the cache keeps the last of a series, without the batch: `(channels, width)` or `(width,)`."""


class Place(Protocol):
    """Where rows begin, as `fork.Rows` says it."""

    copies: int
    steps: int
    passage: Tensor
    start: Tensor

    def repeat(self, x: Tensor) -> Tensor:
        """Once for every copy."""


@dataclass(frozen=True)
class Keeper:
    """One package."""

    watch: Callable[[Host, Cache, int, Memory, ExitStack], None]
    """Record the run that fills this (private, empty) cache, from a layer up, until the stack closes."""
    fill: Callable[[Host, Cache, int, Memory, Place], None]
    """Put into an empty cache what stood there before each row's first token, from a layer up."""
    skip: Callable[[dict[str, object], Tensor, int], object]
    """A skipped block's return value: its arguments by name, its hidden states, and how many things it returns."""


def window(x: Tensor, place: Place, width: int) -> Tensor:
    """The last `width` of a series before each row's first token, zero before the text: `[R, width, ...]`."""
    positions = place.start[:, None] - torch.arange(width, 0, -1)
    found = x[place.passage[:, None], positions.clamp_min(0)]
    return found * (positions >= 0).to(found)[(...,) + (None,) * (found.ndim - 2)]


def placeholder(host: Host, layer: int, rows: int) -> Tensor:
    """A layer's states for so many rows, `[rows, H, K, V]`, in no memory: nobody reads them."""
    found = host.layer(layer)
    return torch.zeros((), device=host.device).expand(rows, found.heads, found.d_k, found.d_v)


def stored_placeholder(host: Host, layer: int, rows: int) -> Tensor:
    """The same as the package stores it."""
    states = placeholder(host, layer, rows)
    return states.mT if host.layer(layer).architecture.value_first else states


def _watch_inputs(module: nn.Module, name: Name, memory: Memory, stack: ExitStack) -> None:
    """Record the first argument of a module's call."""

    def hook(_: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        memory.series[name] = cast(Tensor, args[0] if args else next(iter(kwargs.values())))

    stack.callback(module.register_forward_pre_hook(own_thread(hook), with_kwargs=True).remove)


def _transformers_watch(host: Host, cache: Cache, layer: int, memory: Memory, stack: ExitStack) -> None:
    for index, part in enumerate(cache.layers):
        if index >= layer and isinstance(part, LinearAttentionLayer):
            watch_convolution(part, partial(_convolved, memory, (index, "convolution")))

    def attention() -> None:
        for index, part in enumerate(cache.layers):
            if index >= layer and isinstance(part, DynamicLayer) and part.keys is not None:
                memory.series[index, "keys"] = part.keys.transpose(1, 2)
                memory.series[index, "values"] = cast(Tensor, part.values).transpose(1, 2)

    stack.callback(attention)


def _convolved(memory: Memory, name: Name, inputs: Tensor, width: int) -> None:
    memory.series[name] = inputs.transpose(1, 2)
    memory.shapes[name] = (inputs.shape[1], width)


def _transformers_fill(host: Host, cache: Cache, layer: int, memory: Memory, place: Place) -> None:
    past, rows = int(place.start.max()), len(place.start) * place.copies
    for index, part in enumerate(cache.layers):
        name = (index, "convolution")
        if name in memory.series:
            recurrent = cast(LinearAttentionLayer, part)
            inputs = window(memory.series[name], place, memory.shapes[name][1])
            hold_windows(recurrent, place.repeat(inputs.transpose(1, 2)).contiguous())
            hold_state(recurrent, stored_placeholder(host, index, rows))
        if (index, "keys") in memory.series:
            kept = [memory.series[index, what][place.passage, :past] for what in ("keys", "values")]
            _hold(cast(DynamicLayer, part), kept, place)
        elif index < layer and isinstance(part, DynamicLayer):
            # never read, but the model sizes its attention mask by the first attention layer it has
            part.update(*(torch.zeros((), device=host.device).expand(rows, 1, past, 1) for _ in range(2)))


def _hold(part: DynamicLayer, kept: list[Tensor], place: Place) -> None:
    """Give a layer keys and values `[R, past, H, d]` of what stands before the rows, with room for those of the rows'
    own tokens after them: they are the most that a fork moves, and so are written once and never joined anew."""
    past, whole = kept[0].shape[1], list[Tensor]()
    for x in kept:
        rows, _, heads, width = x.shape
        room = x.new_empty(rows, place.copies, heads, past + place.steps, width)
        room[..., :past, :] = x.transpose(1, 2).unsqueeze(1)
        whole.append(room.flatten(0, 1))
    hold_attention(part, (whole[0], whole[1]), past)


def _transformers_skip(arguments: dict[str, object], hidden: Tensor, returns: int) -> object:
    return hidden if returns == 0 else (hidden, *[None] * (returns - 1))


SHIFTS = (("attention_shift", "attn"), ("ffn_shift", "ffn"))
"""What RWKV-7 calls its two token shifts, and the modules whose inputs they shift."""


def _rwkv7_watch(host: Host, cache: Cache, layer: int, memory: Memory, stack: ExitStack) -> None:
    for index in host.layers:
        for name, module in SHIFTS:
            if index >= layer:
                _watch_inputs(host.blocks[index].get_submodule(module), (index, name), memory, stack)


def _rwkv7_fill(host: Host, cache: Cache, layer: int, memory: Memory, place: Place) -> None:
    rows = len(place.start) * place.copies
    for index in host.layers:
        if index >= layer:
            shifts = (place.repeat(window(memory.series[index, name], place, 1)[:, 0]) for name, _ in SHIFTS)
        else:
            shifts = (torch.zeros((), device=host.device).expand(rows, 1) for _ in SHIFTS)
        cache.set_layer(index, stored_placeholder(host, index, rows), *shifts)  # type: ignore[attr-defined]


def _rwkv7_skip(arguments: dict[str, object], hidden: Tensor, returns: int) -> object:
    """It returns its first five arguments, changed."""
    return (hidden, *list(arguments.values())[1:returns])


def _convolutions(mixer: nn.Module) -> tuple[str, ...]:
    """An fla mixer's short convolutions, in the order of its cache."""
    return tuple(name for name, _ in mixer.named_children() if name.endswith("_conv1d"))


def _fla_watch(host: Host, cache: Cache, layer: int, memory: Memory, stack: ExitStack) -> None:
    for index in range(layer, len(host.blocks)):
        block = host.blocks[index]
        mixer = host.mixers[index].module
        if host.layers[index].family == "rwkv7":  # a token shift before the mixer and one before the MLP
            _watch_inputs(mixer, (index, "conv_state"), memory, stack)
            _watch_inputs(block.get_submodule("ffn"), (index, "ffn_state"), memory, stack)
        for name in _convolutions(mixer):
            _watch_inputs(mixer.get_submodule(name), (index, name), memory, stack)

    def forms() -> None:
        for index, what in memory.series:
            kept, names = cache.layers[index].state, _convolutions(host.mixers[index].module)  # type: ignore[union-attr]
            state = kept["conv_state"][names.index(what)] if what in names else kept[what]
            memory.shapes[index, what] = tuple(state.shape[1:])

    stack.callback(forms)


def _fla_fill(host: Host, cache: Cache, layer: int, memory: Memory, place: Place) -> None:
    rows, past = len(place.start) * place.copies, int(place.start.max())

    def last(index: int, what: str) -> Tensor | None:
        if (index, what) not in memory.series:
            return None
        shape = memory.shapes[index, what]
        if not what.endswith("_conv1d"):
            return place.repeat(window(memory.series[index, what], place, 1)).reshape(rows, *shape)
        return place.repeat(window(memory.series[index, what], place, shape[1]).transpose(1, 2).contiguous())

    for index in host.layers:
        names = _convolutions(host.mixers[index].module) if index >= layer else ()
        cache.update(
            recurrent_state=stored_placeholder(host, index, rows),
            conv_state=tuple(last(index, what) for what in names) or last(index, "conv_state"),
            ffn_state=last(index, "ffn_state"),
            layer_idx=index,
            offset=past,
        )  # type: ignore[call-arg]


def _fla_skip(arguments: dict[str, object], hidden: Tensor, returns: int) -> object:
    """(hidden, attention weights, cache, and for RWKV-7 the first layer's values)."""
    return (hidden, None, arguments["past_key_values"], arguments.get("v_first"))[:returns]


KEEPERS: dict[CacheKind, Keeper] = {
    TRANSFORMERS: Keeper(_transformers_watch, _transformers_fill, _transformers_skip),
    mamba1.CACHE: Keeper(_transformers_watch, _transformers_fill, _transformers_skip),
    RWKV7_HF: Keeper(_rwkv7_watch, _rwkv7_fill, _rwkv7_skip),
    FLA: Keeper(_fla_watch, _fla_fill, _fla_skip),
}


def keeper(host: Host) -> Keeper:
    """The one for a host that can be forked."""
    return KEEPERS[host.cache_kind]


def can_fork(host: Host, cache: Cache, layer: int, tokens: int) -> bool:
    """Whether what a cache keeps of a run of so many tokens can be put back at any token of it, from a layer up."""
    if host.cache_kind is FLA:
        return all(index in host.layers for index in range(layer, len(host.blocks)))
    known = all(index < layer or keeps_known(part, tokens) for index, part in enumerate(cache.layers))
    return known and host.cache_kind in KEEPERS
