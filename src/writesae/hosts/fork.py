"""Run only what an edit changes: short continuations of native passages, many at once, from one layer up.

An edit at a layer leaves everything below that layer, and every earlier position, as it was. So the passages run
once, and each patched run is a *row*: a few tokens that start at the edited place, with a cache made from the
native run (states rebuilt from the streams, convolution windows, keys and values), in which the layers below are
skipped and a response is added to one layer's output (MATH.md section 5). No cache is ever copied or rewound.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.cache_utils import DynamicLayer, LinearAttentionLayer

from writesae.errors import HostError
from writesae.hosts.cache_kinds import TRANSFORMERS
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
    """What enters their short convolutions, `[B, channels, width + T]`, zero before the text."""
    attention: dict[int, tuple[Tensor, Tensor]]
    """Keys and values of the attention layers from `layer` up, `[B, heads, T, d]`."""
    returns: int
    """How many things a block returns: 0 for a bare tensor, else the length of its tuple."""
    checkpoints: dict[int, tuple[int, Tensor]] = field(default_factory=dict, repr=False)
    """Layer -> (t, its states after token t): where the last rows began, so that later rows replay only onwards."""

    def states(self, layer: int, passage: Tensor, position: Tensor) -> Tensor:
        """The layer's states after token `position[j] >= 0` of passage `passage[j]`, `[n, H, K, V]`."""
        done, before = self.checkpoints.get(layer, (-1, None))
        if int(position.min()) < done:
            done, before = -1, None
        last, later = int(position.max()), position > done
        if before is not None and last == done:
            return before[passage]
        part = self.streams[layer].map(lambda x: x[:, done + 1 : last + 1])
        replayed = replay(part, before, keep=(passage[later], position[later] - done - 1))
        self.checkpoints[layer] = (last, replayed.final.clone())
        states = replayed.states.new_empty(len(position), *replayed.states.shape[1:])
        states[later] = replayed.states
        if before is not None:
            states[~later] = before[passage[~later]]
        return states


@torch.no_grad()
def native_run(host: Host, tokens: Tensor, layer: int) -> NativeRun:
    """Run passages `[B, T]` once, recording from `layer` up. Vocabulary logits are computed for the last token only.

    Raises HostError for a host whose cache is not a transformers one: it cannot be rebuilt from a recording yet.
    """
    if host.cache_kind is not TRANSFORMERS:
        raise HostError(
            f"{host.name} keeps its cache in a {host.layer(layer).architecture.package} class, from which runs "
            "cannot be forked yet: causal evaluations need a transformers model class"
        )
    cache = new_cache(host)
    streams: dict[int, Stream] = {}
    windows: dict[int, Tensor] = {}
    entered: list[Tensor] = []
    returned: list[int] = []

    def before(call: KernelCall) -> None:
        if call.layer >= layer:
            streams[call.layer] = call.stream

    def enter(_: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        entered.append(cast(Tensor, args[0] if args else kwargs["hidden_states"]))

    def leave(_: nn.Module, args: object, output: object) -> None:
        returned.append(len(output) if isinstance(output, tuple) else 0)

    with ExitStack() as stack:
        for index in host.layers:
            if index >= layer:
                _record_windows(cache, index, windows)
        block = host.blocks[host.layer(layer).index]
        stack.callback(block.register_forward_pre_hook(enter, with_kwargs=True).remove)
        stack.callback(block.register_forward_hook(leave).remove)
        stack.enter_context(host.tap(Tap(before=before)))
        host.model(input_ids=tokens.to(host.device), logits_to_keep=1, **cache_argument(host, cache))
    attention = {
        index: (part.keys, cast(Tensor, part.values))
        for index, part in enumerate(cache.layers)
        if index >= layer and isinstance(part, DynamicLayer) and part.keys is not None
    }
    padded = {index: nn.functional.pad(x, (_width(cache, index), 0)) for index, x in windows.items()}
    return NativeRun(host, tokens, layer, entered[0], streams, padded, attention, returned[0])


def _width(cache: Cache, layer: int) -> int:
    """How many inputs of its convolution a layer's cache keeps."""
    return int(cast(int, cast(LinearAttentionLayer, cache.layers[layer]).conv_kernel_size[0]))


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
                states = run.states(index, self.passage, self.start - 1)
                states = states.mT if run.host.layer(index).architecture.value_first else states
                recurrent = cast(LinearAttentionLayer, part)
                recurrent.update_conv_state(repeat(self._window(index)))
                _place_state(recurrent, repeat(states))
            if index in run.attention:
                cast(DynamicLayer, part).update(*(repeat(x[self.passage, :, :past]) for x in run.attention[index]))
            elif index < run.layer and isinstance(part, DynamicLayer):
                # never read, but the model sizes its attention mask by the first attention layer it has
                part.update(*(run.hidden.new_zeros(len(self.start) * self.copies, 1, past, 1) for _ in range(2)))
        return cache

    def _window(self, layer: int) -> Tensor:
        """The last inputs of a convolution before each row's first token, `[R, channels, width]`."""
        inputs = self.run.windows[layer]
        positions = self.start[:, None] + torch.arange(inputs.shape[2] - self.run.tokens.shape[1])
        return inputs[self.passage[:, None], :, positions].transpose(1, 2).contiguous()

    def _places(self) -> dict[str, Tensor]:
        """Mask and positions of the rows' tokens, for hosts that ask for them."""
        past = int(self.start.max())
        visible = torch.arange(past) < self.start[:, None]
        mask = torch.cat([visible, visible.new_ones(len(self.start), self.steps)], 1).long()
        given = {"attention_mask": mask, "position_ids": self.positions}
        known = inspect.signature(self.run.host.model.forward).parameters
        return {name: x for name, x in given.items() if name in known}

    @torch.no_grad()
    def logits(self, response: Tensor) -> Tensor:
        """Next-token logits `[R, copies, steps, vocabulary]` with `response` added to the patched layer's output.

        `response` is `[R, copies, steps, H, V]`; zero for a native row.
        """
        run, host = self.run, self.run.host
        added = response.flatten(0, 1)

        def after(call: KernelCall, result: KernelResult) -> KernelResult:
            if call.layer != run.layer:
                return result
            return result._replace(output=(result.output + added).to(result.output.dtype))

        def repeat(x: Tensor) -> Tensor:
            return x.repeat_interleave(self.copies, dim=0)

        places = {name: repeat(x).to(host.device) for name, x in self._places().items()}
        below = skip_below(host, run.layer, repeat(self.take(run.hidden)), run.returns)
        with below, host.tap(Tap(after=after)):
            out = host.model(
                input_ids=repeat(self.take(run.tokens)).to(host.device),
                **places,
                **cache_argument(host, self.cache()),
            )
        logits = cast(Tensor, out.logits)
        return logits.view(len(self.start), self.copies, *logits.shape[1:])


def _place_state(part: LinearAttentionLayer, states: Tensor) -> None:
    """Hand states to a cache that serves one call and is thrown away: nothing is copied in, nothing kept after."""
    part.recurrent_states[0] = states.contiguous()
    part.is_recurrent_states_initialized[0] = True
    part.update_recurrent_state = lambda after, *_, **__: after  # type: ignore[method-assign]


@contextmanager
def skip_below(host: Host, layer: int, hidden: Tensor, returns: int) -> Iterator[None]:
    """Skip every block below `layer`, which receives `hidden` (`[rows, steps, width]`) instead.

    `returns` is how many things a block returns (0: a bare tensor).
    """

    def give(
        _: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> tuple[tuple[object, ...], dict[str, object]]:
        if args:
            return (hidden, *args[1:]), kwargs
        return args, kwargs | {"hidden_states": hidden}

    with ExitStack() as stack:
        for block in list(host.blocks)[:layer]:
            stack.enter_context(_passing_through(block, returns))
        stack.callback(host.blocks[layer].register_forward_pre_hook(give, with_kwargs=True).remove)
        yield


@contextmanager
def _passing_through(block: nn.Module, returns: int) -> Iterator[None]:
    """Let a block return its input, and give it its own `forward` back afterwards."""
    own: Callable[..., object] | None = block.__dict__.get("forward")

    def identity(hidden_states: Tensor, *args: object, **kwargs: object) -> object:
        return hidden_states if returns == 0 else (hidden_states, *[None] * (returns - 1))

    block.forward = identity
    try:
        yield
    finally:
        del block.forward
        if own is not None:
            block.forward = own
