"""Apply edits to a running host: inside `editing`, every forward pass of the model is an edited one.

At each kernel call of an edited layer, the edits of its tokens are found by stepping the layer's own stream. What they
add to the state, `X`, moves on by the homogeneous recurrence (MATH.md section 5): its reads are added to the outputs
of the same call, and what is left of it to the final state, from which later calls carry it on natively. So an edit
works alike in prefill, in decoding, and across any split of a text into calls, and no cache is edited by hand.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

from writesae.causal.actions import Edit, check_edit
from writesae.causal.schedule import At, Firing, Predicate, before_prompt
from writesae.causal.seen import Seen, Tokens
from writesae.errors import InputError
from writesae.hosts import Host, KernelCall, KernelResult, Tap
from writesae.hosts.intercept import own_thread, patched
from writesae.hosts.internals import find_cache
from writesae.recurrence import Stream

Note = Callable[[int, Seen, Tensor], None]
"""Told of every place where an edit acts: which edit, what it sees there before it acts, and in which rows, `[B]`."""


@dataclass
class _Run:
    """Where one sequence of calls stands: one cache, or one forward pass without."""

    prompt: Tensor
    """Tokens of each row's first call, `[B]`."""
    length: Tensor
    """Tokens of each row so far, `[B]`."""
    row: Tensor
    """Which row of the batch that was given each row continues, `[B]`."""


class _Generating(threading.local):
    """What this thread's `generate` is doing."""

    copies: int = 1
    """Beams or samples of each prompt: as many rows in its place, one after another."""


_generating = _Generating()


def _counted(generate: Callable[..., object]) -> Callable[..., object]:
    """`generate`, telling how many rows it makes of one."""

    def counted(*args: object, **kwargs: object) -> object:
        given = kwargs.get("generation_config", args[1] if len(args) > 1 else None)
        config = generate.__self__.generation_config if given is None else given  # type: ignore[attr-defined]
        wanted = [kwargs.get(name, getattr(config, name)) for name in ("num_beams", "num_return_sequences")]
        before, _generating.copies = _generating.copies, max(int(n or 1) for n in wanted)  # type: ignore[call-overload]
        try:
            return generate(*args, **kwargs)
        finally:
            _generating.copies = before

    return counted


@dataclass
class _Session:
    host: Host
    edits: Sequence[Edit]
    note: Note | None = None
    first: int = 0
    now: Tokens | None = None
    """What the forward pass that is going on runs, and below the sequence that it belongs to."""
    run: _Run | None = None
    caches: WeakKeyDictionary[Cache, _Run] = field(default_factory=WeakKeyDictionary)
    reached: set[tuple[int, int]] = field(default_factory=set)
    """(edit, index of its position) for every scheduled position that came by."""
    ran: int = 0
    """Longest row so far."""

    def enter(self, _: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        tokens = kwargs.get("input_ids", args[0] if args else None)
        if not isinstance(tokens, Tensor):
            raise InputError("an edited host was run without input_ids: edits are scheduled by token")
        mask = kwargs.get("attention_mask")
        width = tokens.shape[1]
        real = torch.ones_like(tokens, dtype=torch.bool)
        if isinstance(mask, Tensor) and mask.ndim == 2:
            real = mask[:, -width:].bool()
        cache = find_cache(kwargs)
        counts = real.sum(1)
        known = None if cache is None else self.caches.get(cache)
        if known is None:
            past = self._past(cache, mask, width, counts)
            row = self.first + torch.arange(len(tokens), device=tokens.device) // _generating.copies
            run = _Run(prompt=counts + past, length=past, row=row)
        else:
            run = known
        position = torch.where(real, run.length[:, None] + real.cumsum(1) - 1, -1)
        run.length = run.length + counts
        if cache is not None:
            self.caches[cache] = run
        self.ran = max(self.ran, int(run.length.max()))
        self.run, self.now = run, Tokens(tokens, position, run.prompt, run.row)
        self._reach(self.now)

    def _past(self, cache: Cache | None, mask: object, width: int, counts: Tensor) -> Tensor:
        """Tokens of each row that ran before the edits began, `[B]`."""
        none = torch.zeros_like(counts)
        first = next(iter(self.host.layers))
        if cache is None or self.host.cache_kind.read(cache, first) is None:
            return none
        if isinstance(mask, Tensor) and mask.shape[1] > width:
            return mask[:, :-width].sum(1)
        if any(isinstance(layer, CacheLayerMixin) for layer in cache.layers):
            return none + int(cache.get_seq_length())
        raise InputError(
            "edits began on a cache that already holds text and does not count it: pass attention_mask for all of it"
        )

    def leave(self, _: nn.Module, args: object, kwargs: object, output: object) -> None:
        """Remember the cache where the model made it itself, and refuse a run that broke down."""
        if self.now is None:
            return
        if (cache := find_cache(output)) is not None and self.run is not None:
            self.caches[cache] = self.run
        logits = getattr(output, "logits", None)
        self.now = None
        if isinstance(logits, Tensor) and not bool(logits.isfinite().all()):
            raise InputError(f"the model's logits overflow after {self._named(self.edits)}: lower the magnitude")

    def _reach(self, now: Tokens) -> None:
        rows = int(now.row.max()) + 1
        for index, edit in enumerate(self.edits):
            if edit.row is not None and edit.row >= rows:
                raise InputError(f"an edit was asked for row {edit.row} of a batch of {rows} rows")
            if not isinstance(edit.when, At):
                continue
            lengths = now.prompt if edit.row is None else now.prompt[now.row == edit.row]
            if any(p < -int(lengths.min()) for p in edit.when.positions):
                raise before_prompt(edit.when.positions, int(lengths.min()))
            self.reached |= {(index, i) for i in set(edit.when.places(now).flatten().tolist()) if i >= 0}

    def check_reached(self) -> None:
        for index, edit in enumerate(self.edits):
            if self.ran and isinstance(edit.when, At):
                missed = [p for i, p in enumerate(edit.when.positions) if (index, i) not in self.reached]
                if missed:
                    raise InputError(
                        f"an edit of {edit.site} was scheduled at position {missed[0]}, which was never reached: "
                        f"the text has positions 0 to {self.ran - 1} (the last token of a generation is not run)"
                    )

    def after(self, call: KernelCall, result: KernelResult) -> KernelResult:
        now = self.now
        if now is None:
            return result
        here = [i for i, edit in enumerate(self.edits) if edit.site.layer == call.layer]
        mine = [i for i in here if bool((self.edits[i].places(now) >= 0).any())]
        if not mine:
            return result
        edits, note = [self.edits[i] for i in mine], self.note
        named = None if note is None else lambda i, seen, acts: note(mine[i], seen, acts)
        found = respond_to(call.stream, call.initial, edits, now, named)
        if not bool(found.outputs.any()) and not bool(found.state.any()):
            return result  # nothing was added: the same bits as without edits
        if not (_measurable(found.state) and _measurable(found.outputs.to(result.output.dtype))):
            raise InputError(f"the state of layer {call.layer} overflows by {self._named(edits)}: lower the magnitude")
        output, final = result.output.float().clone(), result.final
        output[found.row, :, found.head] += found.outputs
        if final is not None:
            final = final.clone()
            final[found.row, found.head] += found.state.to(final.dtype)
        return result._replace(output=output, final=final)

    @staticmethod
    def _named(edits: Sequence[Edit]) -> str:
        return "the edit " + "; ".join(map(str, edits[:3])) + (f"; and {len(edits) - 3} more" if edits[3:] else "")


def _measurable(x: Tensor) -> bool:
    """Whether the squared length of every vector is finite: the norms that follow a recurrence square what they get,
    and what overflows there is divided to zero without a trace."""
    return bool(x.float().square().sum(-1).isfinite().all())


class Added(NamedTuple):
    """What edits add to a layer, in the `N` heads of rows that any edit can reach."""

    row: Tensor
    """Of the pass, `[N]`."""
    head: Tensor
    """`[N]`."""
    outputs: Tensor
    """`[N, T, V]`."""
    state: Tensor
    """After the last token, `[N, K, V]`."""


def respond_to(
    stream: Stream, initial: Tensor | None, edits: Sequence[Edit], tokens: Tokens, note: Note | None = None
) -> Added:
    """Step a layer's stream `[B, T, H, d]` with its edits; `initial` is `[B, H, K, V]`, None for an empty state.

    A head of a row that no edit can reach costs nothing.
    """
    tokens = tokens.to(stream.key.device)
    places = [edit.places(tokens) for edit in edits]
    reached = torch.zeros(stream.key[:, 0, :, 0].shape, dtype=torch.bool, device=stream.key.device)
    for edit, place in zip(edits, places, strict=True):
        reached[:, edit.site.head] |= (place >= 0).any(1)
    row, head = reached.nonzero(as_tuple=True)
    busy = [(place >= 0).any(0).tolist() for place in places]
    own = [(head == e.site.head).nonzero()[:, 0] for e in edits]
    lanes = stream.map(lambda x: x[row, :, head])
    state = lanes.key.new_zeros(len(row), lanes.key.shape[-1], lanes.value.shape[-1])
    added, reads = torch.zeros_like(state), []
    if initial is not None:
        state = initial[row, head].to(state)
    for t in range(lanes.key.shape[1]):
        here = lanes.map(lambda x, at=t: x[:, at])  # type: ignore[misc]
        erased = _step(here, state)
        update = here.value if here.rank_one else None
        if here.erase_gate is not None and erased is not None:
            update = here.value - here.erase_gate * erased[:, 0]
        state.baddbmm_(here.key.unsqueeze(2), here.value.unsqueeze(1))
        _step(here, added)
        later: list[tuple[Tensor, Tensor]] = []
        for index, edit in enumerate(edits):
            if not busy[index][t]:
                continue
            mine, place = own[index], places[index][row[own[index]], t]
            of = row[mine]
            seen = Seen(
                here.key[mine], here.value[mine], None if update is None else update[mine], state[mine],
                tokens.ids[of, t], tokens.position[of, t], tokens.prompt[of], tokens.row[of],
            )  # fmt: skip
            acts = place >= 0
            if isinstance(edit.when, Firing | Predicate):
                acts = acts & edit.when.now(seen)
                if not bool(acts.any()):
                    continue
            if note is not None:
                note(index, seen, acts)
            matrix = torch.where(acts[:, None, None], edit.what.matrix(seen, place), 0.0)
            state.index_add_(0, mine, matrix)
            if edit.timing == "at_token":
                added.index_add_(0, mine, matrix)
            else:
                later.append((mine, matrix))
        reads.append((here.query.unsqueeze(1) @ added)[:, 0])
        for mine, matrix in later:
            added.index_add_(0, mine, matrix)
    return Added(row, head, torch.stack(reads, 1), added)


def _step(here: Stream, state: Tensor) -> Tensor | None:
    """Turn `S` `[N, K, V]` into `diag(d_t) S - e_t (f_t^T S)` in place, for one token (`[N, d]`); returns `f_t^T S`."""
    erased = None if here.erase is None else here.erase[1].unsqueeze(1) @ state
    state.mul_(here.log_decay.exp().unsqueeze(-1))
    if here.erase is not None and erased is not None:
        state.baddbmm_(here.erase[0].unsqueeze(2), erased, alpha=-1)
    return erased


@contextmanager
def editing(host: Host, edits: Sequence[Edit], note: Note | None = None, first: int = 0) -> Iterator[None]:
    """Make these edits in every forward pass of the host's model in this thread: plain calls, the model's own
    `generate`, with or without a cache, with beams or several samples of a prompt.

    Positions count from each row's first real token (left padding is told by `attention_mask`), and negative ones
    from the end of what a cache's first call runs, its prompt. `note` is told where edits act; where the rows run are a
    part of those that the edits speak of, `first` is the number of the first. Raises InputError for an edit that does
    not fit the host, a position that lies outside the text or is never reached, and a state that overflows.
    """
    for edit in edits:
        check_edit(host, edit)
    session = _Session(host, edits, note, first)
    with ExitStack() as stack:
        enter = host.model.register_forward_pre_hook(own_thread(session.enter), with_kwargs=True)
        stack.callback(enter.remove)
        leave = host.model.register_forward_hook(own_thread(session.leave), with_kwargs=True)
        stack.callback(leave.remove)
        stack.enter_context(patched(host.model, "generate", _counted))
        stack.enter_context(host.tap(Tap(after=session.after)))
        yield
    session.check_reached()
