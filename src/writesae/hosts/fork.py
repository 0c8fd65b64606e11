"""Run only what an edit changes: short continuations of native passages, many at once, from one layer up.

An edit at a layer leaves everything below that layer, and every earlier position, as it was. So the passages run
once, and each patched run is a *row*: a few tokens that start at the edited place, with a cache made from the
native run (states rebuilt from the streams, convolution windows, keys and values), in which the layers below are
skipped and a response is added to one layer's output (MATH.md section 5). No cache is ever copied or rewound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.cache_utils import DynamicLayer, LinearAttentionLayer

from writesae.hosts.caches import cache_argument, new_cache
from writesae.hosts.host import Host
from writesae.hosts.intercept import KernelCall, Tap
from writesae.hosts.kernels import KernelResult
from writesae.recurrence import Stream, replay


@dataclass(frozen=True)
class NativeRun:
    """One native pass over passages of equal length, with what is needed to continue it from anywhere."""

    host: Host
    tokens: Tensor
    """`[B, T]`."""
    layer: int
    """Rows of this run may be patched at this layer."""
    hidden: Tensor
    """What enters that layer's block, `[B, T, width]`."""
    streams: dict[int, Stream]
    """Of the recurrent layers from `layer` up."""
    windows: dict[int, Tensor]
    """What enters their short convolutions, `[B, channels, T]`."""
    attention: dict[int, tuple[Tensor, Tensor]]
    """Keys and values of the attention layers above, `[B, heads, T, d]`."""


@torch.no_grad()
def native_run(host: Host, tokens: Tensor, layer: int) -> NativeRun:
    """Run passages `[B, T]` once, recording from `layer` up. Vocabulary logits are not computed."""
    cache = new_cache(host)
    streams: dict[int, Stream] = {}
    windows: dict[int, Tensor] = {}
    entered: list[Tensor] = []

    def before(call: KernelCall) -> None:
        if call.layer >= layer:
            streams[call.layer] = call.stream

    def enter(_: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        entered.append(cast(Tensor, args[0] if args else kwargs["hidden_states"]))

    with ExitStack() as stack:
        for index in host.layers:
            if index >= layer:
                _record_windows(cache, index, windows)
        hook = host.blocks[host.layer(layer).index].register_forward_pre_hook(enter, with_kwargs=True)
        stack.callback(hook.remove)
        stack.enter_context(host.tap(Tap(before=before)))
        host.model(input_ids=tokens.to(host.device), logits_to_keep=1, **cache_argument(host, cache))
    attention = {
        index: (part.keys, cast(Tensor, part.values))
        for index, part in enumerate(cache.layers)
        if index >= layer and isinstance(part, DynamicLayer) and part.keys is not None
    }
    return NativeRun(host, tokens, layer, entered[0], streams, windows, attention)


def _record_windows(cache: Cache, layer: int, windows: dict[int, Tensor]) -> None:
    """Make this (private) cache keep the whole input of a layer's convolution."""
    part = cast(LinearAttentionLayer, cache.layers[layer])
    update: Callable[..., Tensor] = part.update_conv_state

    def keep(inputs: Tensor, *args: object, **kwargs: object) -> Tensor:
        windows[layer] = inputs
        return update(inputs, *args, **kwargs)

    part.update_conv_state = keep  # type: ignore[method-assign, assignment]


class Rows:
    """Places in a native run from which to continue: row `r` runs tokens `start[r] .. start[r] + steps - 1` of
    passage `passage[r]`, in `copies` versions that differ only in what is added at the patched layer."""

    def __init__(self, run: NativeRun, passage: Tensor, start: Tensor, steps: int, copies: int) -> None:
        if len(start) and (int(start.min()) < 1 or int(start.max()) + steps > run.tokens.shape[1]):
            raise ValueError(
                f"rows of {steps} steps start at {int(start.min())}..{int(start.max())}: need >= 1 and inside"
            )
        self.run, self.passage, self.start, self.steps, self.copies = run, passage, start, steps, copies
        self.positions = start[:, None] + torch.arange(steps)

    def take(self, x: Tensor) -> Tensor:
        """`[B, T, ...]` of the native run at each row's tokens: `[R, steps, ...]`."""
        return x[self.passage[:, None], self.positions]

    def stream(self) -> Stream:
        """The patched layer's own stream at the rows' tokens, `[R, steps, H, d]`."""
        return self.run.streams[self.run.layer].map(self.take)

    def cache(self) -> Cache:
        """A cache for `R * copies` rows (copies fastest), as it stood before each row's first token."""
        cache, run = new_cache(self.run.host), self.run
        past = int(self.start.max())

        def repeat(x: Tensor) -> Tensor:
            return x.repeat_interleave(self.copies, dim=0)

        for index, part in enumerate(cache.layers):
            if index in run.streams:
                states = replay(run.streams[index], keep=(self.passage, self.start - 1)).states
                recurrent = cast(LinearAttentionLayer, part)
                recurrent.update_conv_state(repeat(_window(run, index, self.passage, self.start)))
                recurrent.update_recurrent_state(repeat(states))
            if index in run.attention:
                cast(DynamicLayer, part).update(*(repeat(x[self.passage, :, :past]) for x in run.attention[index]))
            elif index < run.layer and isinstance(part, DynamicLayer):
                # never read, but the model sizes its attention mask by the first attention layer it has
                part.update(*(run.hidden.new_zeros(len(self.start) * self.copies, 1, past, 1) for _ in range(2)))
        return cache

    @torch.no_grad()
    def logits(self, response: Tensor) -> Tensor:
        """Next-token logits `[R, copies, steps, vocabulary]` with `response` added to the patched layer's output.

        `response` is `[R, copies, steps, H, V]`; zero for a native row.
        """
        run, host, past = self.run, self.run.host, int(self.start.max())
        added = response.flatten(0, 1)

        def after(call: KernelCall, result: KernelResult) -> KernelResult:
            if call.layer != run.layer:
                return result
            return result._replace(output=(result.output + added).to(result.output.dtype))

        def repeat(x: Tensor) -> Tensor:
            return x.repeat_interleave(self.copies, dim=0)

        visible = torch.arange(past) < self.start[:, None]
        mask = torch.cat([visible, visible.new_ones(len(self.start), self.steps)], 1).long()
        with skip_below(host, run.layer, repeat(self.take(run.hidden))), host.tap(Tap(after=after)):
            out = host.model(
                input_ids=repeat(self.take(run.tokens)).to(host.device),
                attention_mask=repeat(mask).to(host.device),
                position_ids=repeat(self.positions).to(host.device),
                **cache_argument(host, self.cache()),
            )
        logits = cast(Tensor, out.logits)
        return logits.view(len(self.start), self.copies, *logits.shape[1:])


def _window(run: NativeRun, layer: int, passage: Tensor, start: Tensor) -> Tensor:
    """The last inputs of a convolution before each row's first token, `[R, channels, width]`, zero before the text."""
    width = _conv_width(run.host, layer)
    inputs = nn.functional.pad(run.windows[layer], (width, 0))
    positions = start[:, None] + torch.arange(width)
    return inputs[passage[:, None], :, positions].transpose(1, 2).contiguous()


def _conv_width(host: Host, layer: int) -> int:
    return int(host.mixers[layer].module.conv1d.kernel_size[0])  # type: ignore[union-attr, index]


@contextmanager
def skip_below(host: Host, layer: int, hidden: Tensor) -> Iterator[None]:
    """Skip every block below `layer`, which receives `hidden` (`[rows, steps, width]`) instead."""

    def give(
        _: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> tuple[tuple[object, ...], dict[str, object]]:
        if args:
            return (hidden, *args[1:]), kwargs
        return args, kwargs | {"hidden_states": hidden}

    with ExitStack() as stack:
        for block in list(host.blocks)[:layer]:
            stack.enter_context(_passing_through(block))
        stack.callback(host.blocks[layer].register_forward_pre_hook(give, with_kwargs=True).remove)
        yield


@contextmanager
def _passing_through(block: nn.Module) -> Iterator[None]:
    """Let a block return its input, and give it its own `forward` back afterwards."""
    own: Callable[..., object] | None = block.__dict__.get("forward")
    block.forward = _identity
    try:
        yield
    finally:
        del block.forward
        if own is not None:
            block.forward = own


def _identity(hidden_states: Tensor, *args: object, **kwargs: object) -> Tensor:
    return hidden_states
