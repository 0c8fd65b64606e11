"""Run only what an edit changes: short continuations of native passages, many at once, from one layer up.

An edit at a layer leaves everything below that layer, and every earlier position, as it was. So the passages run
once, and each patched run is a *row*: a few tokens that start at the edited place, with a cache made from the
native run (convolution windows, keys and values), in which the layers below are skipped and responses are added to
layers' outputs (MATH.md section 5). The rows that continue one place share its recurrent states, which are rebuilt
from the streams and only read (`recurrence.branch`): no cache is ever copied or rewound, and no state either.

Where a cache keeps more than can be put back (the keys by which attention chooses what it reads, a sliding window), the
same rows run their passages from the beginning: many times slower, and equal.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from writesae.hosts.caches import cache_argument, new_cache
from writesae.hosts.finite import check_finite
from writesae.hosts.fork_memory import Memory, can_fork, keeper, placeholder
from writesae.hosts.host import Host, wide
from writesae.hosts.intercept import KernelCall, Tap, own_thread, patched
from writesae.hosts.kernels import KernelResult
from writesae.hosts.output import final_norm, unembed
from writesae.recurrence import Stream, branch, replay

Response = Callable[[KernelCall], Tensor]
"""A layer's call in the patched run -> what is added to its outputs, `[R, copies, steps, H, V]`."""

FROM_BELOW = ("hidden_states", "v_first")
"""Arguments of a block that come from the blocks below it."""


@dataclass(frozen=True)
class NativeRun:
    """One native pass over passages of equal length, with what is needed to continue it from anywhere."""

    host: Host
    tokens: Tensor
    """`[B, T]`."""
    layer: int
    """Rows of this run may be patched from this layer up."""
    entered: dict[str, Tensor]
    """What enters that layer's block from below, `[B, T, width]` each."""
    streams: dict[int, Stream]
    """Of the recurrent layers from `layer` up."""
    memory: Memory
    """What their caches keep beside states."""
    forks: bool
    """Whether that is all that they keep; where it is not, it is empty and rows run from the beginning."""
    left: Tensor
    """What enters the final norm, `[B, T, width]`."""
    returns: int
    """How many things a block returns: 0 for a bare tensor, else the length of its tuple."""
    checkpoints: dict[int, tuple[int, Tensor]] = field(default_factory=dict, repr=False)
    """Layer -> (t, its states after token t): where the last rows began, so that later rows replay only onwards."""

    @torch.no_grad()
    def nudged_logits(self, passage: Tensor, positions: Tensor) -> Tensor:
        """The run's own logits at positions `[R, steps]` of passages `[R]`, what enters the final norm being nudged by
        two units: `[R, steps, vocabulary]`, float32 or wider."""
        return wide(unembed(self.host, nudged(self.left[passage[:, None], positions], 2)))

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
        if bool(later.all()):
            return replayed.states
        states = replayed.states.new_empty(len(position), *replayed.states.shape[1:])
        states[later] = replayed.states
        if before is not None:
            states[~later] = before[passage[~later]]
        return states


@torch.no_grad()
def native_run(host: Host, tokens: Tensor, layer: int) -> NativeRun:
    """Run passages `[B, T]` (without padding) once, recording from `layer` up. Vocabulary logits are computed for the
    last token only.
    """
    cache = new_cache(host)
    streams: dict[int, Stream] = {}
    entered: dict[str, Tensor] = {}
    returned: list[int] = []
    left: list[Tensor] = []
    memory, forks = Memory(), can_fork(host, cache, layer, tokens.shape[1])
    block = host.blocks[host.layer(layer).index]

    def before(call: KernelCall) -> None:
        if call.layer >= layer:
            streams[call.layer] = call.stream

    def enter(_: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        given = by_name(block, args, kwargs)
        entered.update({name: cast(Tensor, given[name]) for name in FROM_BELOW if given.get(name) is not None})

    def leave(_: nn.Module, args: object, output: object) -> None:
        returned.append(len(output) if isinstance(output, tuple) else 0)

    def norming(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        left.append(inputs[0])

    with ExitStack() as stack:
        if forks:
            keeper(host).watch(host, cache, layer, memory, stack)
        stack.callback(block.register_forward_pre_hook(own_thread(enter), with_kwargs=True).remove)
        stack.callback(block.register_forward_hook(own_thread(leave)).remove)
        stack.callback(final_norm(host).register_forward_pre_hook(own_thread(norming)).remove)
        stack.enter_context(host.tap(Tap(before=before)))
        host.model(input_ids=tokens.to(host.device), logits_to_keep=1, **cache_argument(host, cache))
    check_finite(host, left[-1], tokens)
    return NativeRun(host, tokens, layer, entered, streams, memory, forks, left[-1], returned[0])


def by_name(block: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> dict[str, object]:
    """A block's arguments by name, in order; those that it merely passes on (`**kwargs`) too."""
    bound = inspect.signature(type(block).forward).bind(block, *args, **kwargs)
    own = {name: x for name, x in list(bound.arguments.items())[1:] if name not in ("args", "kwargs")}
    return own | bound.kwargs


class Rows:
    """Places in a native run from which to continue: row `r` runs tokens `start[r] .. start[r] + steps - 1` of
    passage `passage[r]`, in `copies` versions that differ only in what is added at the patched layers."""

    def __init__(self, run: NativeRun, passage: Tensor, start: Tensor, steps: int, copies: int) -> None:
        if len(start) and (int(start.min()) < 1 or int(start.max()) + steps > run.tokens.shape[1]):
            raise ValueError(
                f"rows of {steps} steps start at {int(start.min())}..{int(start.max())}: need >= 1 and inside"
            )
        self.run, self.passage, self.start, self.steps, self.copies = run, passage, start, steps, copies
        self.positions = start[:, None] + torch.arange(steps)
        self._held: tuple[int, Tensor] | None = None

    def take(self, x: Tensor) -> Tensor:
        """`[B, T, ...]` of the native run at each row's tokens: `[R, steps, ...]`."""
        return x[self.passage[:, None], self.positions]

    def repeat(self, x: Tensor) -> Tensor:
        """`[R, ...]` once for every copy, copies fastest: `[R * copies, ...]`."""
        return x.unsqueeze(1).expand(-1, self.copies, *x.shape[1:]).flatten(0, 1)

    def stream(self) -> Stream:
        """The lowest patched layer's own stream at the rows' tokens, `[R, steps, H, d]`."""
        return self.run.streams[self.run.layer].map(self.take)

    def states(self, layer: int) -> Tensor:
        """A layer's native states before the rows' first tokens, `[R, H, K, V]`; the last layer's are kept."""
        if self._held is None or self._held[0] != layer:
            self._held = (layer, self.run.states(layer, self.passage, self.start - 1))
        return self._held[1]

    def _places(self) -> dict[str, Tensor]:
        """Mask and positions of the rows' tokens, for hosts that ask for them."""
        alone = self.run.host.layer(self.run.layer).architecture.token_by_token  # its mask is of the call's own tokens
        past = 0 if alone else int(self.start.max())
        visible = torch.arange(past) < self.start[:, None]
        mask = torch.cat([visible, visible.new_ones(len(self.start), self.steps)], 1).long()
        given = {"attention_mask": mask, "position_ids": self.positions}
        known = inspect.signature(self.run.host.model.forward).parameters
        return {name: x for name, x in given.items() if name in known}

    @torch.no_grad()
    def logits(self, response: Tensor | Mapping[int, Response]) -> Tensor:
        """Next-token logits `[R, copies, steps, vocabulary]`, float32 at least, with responses added to patched layers'
        outputs.

        `response` is `[R, copies, steps, H, V]`, added at the run's layer; or one function for every patched layer,
        given that layer's call in the patched run. Zero for a native row.
        """
        run, host = self.run, self.run.host
        responses = {run.layer: lambda _: response} if isinstance(response, Tensor) else response
        if not run.forks:
            return self._from_the_beginning(responses)

        def instead(call: KernelCall) -> KernelResult | None:
            if call.layer < run.layer:
                return None
            output = branch(call.stream, self.states(call.layer), self.copies)
            if call.layer in responses:
                output = output + responses[call.layer](call).flatten(0, 1)
            return KernelResult(output, placeholder(host, call.layer, len(output)))

        cache = new_cache(host)
        keeper(host).fill(host, cache, run.layer, run.memory, self)
        places = {name: self.repeat(x).to(host.device) for name, x in self._places().items()}
        entered = {name: self.repeat(self.take(x)) for name, x in run.entered.items()}
        with skip_below(host, run.layer, entered, run.returns), host.tap(Tap(instead=instead)):
            out = host.model(
                input_ids=self.repeat(self.take(run.tokens)).to(host.device), **places, **cache_argument(host, cache)
            )
        logits = wide(cast(Tensor, out.logits))
        check_finite(host, logits, self.repeat(run.tokens[self.passage]))
        return logits.view(len(self.start), self.copies, *logits.shape[1:])

    def _from_the_beginning(self, responses: Mapping[int, Response]) -> Tensor:
        host, at = self.run.host, self.repeat(self.positions)
        row = torch.arange(len(at))[:, None]

        def after(call: KernelCall, result: KernelResult) -> KernelResult:
            if call.layer not in responses:
                return result
            own = call.stream.map(lambda x: x[row, at])
            here = KernelCall(call.layer, replace(call.kernel, stream=lambda _: own), call.arguments)
            output = result.output.clone()
            output[row, at] += responses[call.layer](here).flatten(0, 1)
            return result._replace(output=output)

        tokens = self.run.tokens[self.passage, : int(self.positions.max()) + 1]
        with host.tap(Tap(after=after)):
            logits = host.run(self.repeat(tokens), keep=at)
        return logits.view(len(self.start), self.copies, *logits.shape[1:])


def nudged(x: Tensor, units: int = 1) -> Tensor:
    """Numbers moved by so many units in the last place: up and down in turn, so that no norm takes it out again."""
    return x * (1 + units * torch.finfo(x.dtype).eps * (torch.ones_like(x).cumsum(-1) % 2 * 2 - 1))


class _Skipped(threading.local):
    """The blocks that this thread skips: others may be running the same model whole."""

    blocks: Set[nn.Module] = frozenset()


_skipped = _Skipped()


@contextmanager
def skip_below(host: Host, layer: int, entered: Mapping[str, Tensor], returns: int) -> Iterator[None]:
    """Skip every block below `layer`, which receives `entered` (`[rows, steps, width]` each) instead.

    `returns` is how many things a block returns (0: a bare tensor).
    """
    block = host.blocks[layer]
    names = [*inspect.signature(type(block).forward).parameters][1:]

    def give(
        _: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> tuple[tuple[object, ...], dict[str, object]]:
        given = tuple(entered.get(name, x) for name, x in zip(names, args, strict=False))
        return given, {name: entered.get(name, x) for name, x in kwargs.items()}

    skip = keeper(host).skip

    def through(below: nn.Module, forward: Callable[..., object]) -> Callable[..., object]:
        def identity(*args: object, **kwargs: object) -> object:
            if below not in _skipped.blocks:
                return forward(*args, **kwargs)
            given = by_name(below, args, kwargs)
            return skip(given, cast(Tensor, given["hidden_states"]), returns)

        return identity

    with ExitStack() as stack:
        stack.callback(setattr, _skipped, "blocks", _skipped.blocks)
        _skipped.blocks = set(host.blocks[:layer])
        for below in _skipped.blocks:
            stack.enter_context(patched(below, "forward", partial(through, below)))
        stack.callback(block.register_forward_pre_hook(own_thread(give), with_kwargs=True).remove)
        yield
