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
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

from writesae.causal.actions import Edit, check_edit
from writesae.causal.schedule import At
from writesae.causal.seen import Seen
from writesae.errors import InputError
from writesae.hosts import Host, KernelCall, KernelResult, Tap
from writesae.hosts.intercept import patched
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
class _Pass:
    """The forward pass that is going on."""

    tokens: Tensor
    """`[B, T]`."""
    position: Tensor
    """`[B, T]`, -1 in left padding."""
    run: _Run


@dataclass
class _Session:
    host: Host
    edits: Sequence[Edit]
    note: Note | None = None
    now: _Pass | None = None
    caches: WeakKeyDictionary[Cache, _Run] = field(default_factory=WeakKeyDictionary)
    owner: int = field(default_factory=threading.get_ident)
    """The thread whose runs are edited."""
    reached: set[tuple[int, int]] = field(default_factory=set)
    """(edit, index of its position) for every scheduled position that came by."""
    ran: int = 0
    """Longest row so far."""

    def enter(self, _: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        if threading.get_ident() != self.owner:
            return
        tokens = kwargs.get("input_ids", args[0] if args else None)
        if not isinstance(tokens, Tensor):
            raise InputError("an edited host was run without input_ids: edits are scheduled by token")
        mask = kwargs.get("attention_mask")
        width = tokens.shape[1]
        real = torch.ones_like(tokens, dtype=torch.bool)
        if isinstance(mask, Tensor) and mask.ndim == 2:
            real = mask[:, -width:].bool()
        cache = kwargs.get(self.host.cache_kind.keyword(self.host.model))
        counts = real.sum(1)
        known = self.caches.get(cache) if isinstance(cache, Cache) else None
        if known is None:
            past = self._past(cache, mask, width, counts)
            row = torch.arange(len(tokens), device=tokens.device) // _generating.copies
            run = _Run(prompt=counts + past, length=past, row=row)
        else:
            run = known
        position = torch.where(real, run.length[:, None] + real.cumsum(1) - 1, -1)
        run.length = run.length + counts
        if isinstance(cache, Cache):
            self.caches[cache] = run
        self.ran = max(self.ran, int(run.length.max()))
        self.now = _Pass(tokens, position, run)
        self._note(position, run)

    def _past(self, cache: object, mask: object, width: int, counts: Tensor) -> Tensor:
        """Tokens of each row that ran before the edits began, `[B]`."""
        none = torch.zeros_like(counts)
        first = next(iter(self.host.layers))
        if not isinstance(cache, Cache) or self.host.cache_kind.read(cache, first) is None:
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
        if threading.get_ident() != self.owner or self.now is None:
            return
        for name in ("past_key_values", "cache_params"):
            cache = getattr(output, name, None)
            if isinstance(cache, Cache):
                self.caches[cache] = self.now.run
        logits = getattr(output, "logits", None)
        self.now = None
        if isinstance(logits, Tensor) and not bool(logits.isfinite().all()):
            raise InputError(f"the model's logits overflow after {self._named(self.edits)}: lower the magnitude")

    def _note(self, position: Tensor, run: _Run) -> None:
        rows = int(run.row.max()) + 1
        for index, edit in enumerate(self.edits):
            if edit.row is not None and edit.row >= rows:
                raise InputError(f"an edit was asked for row {edit.row} of a batch of {rows} rows")
            if not isinstance(edit.when, At):
                continue
            lengths = run.prompt if edit.row is None else run.prompt[run.row == edit.row]
            early = [p for p in edit.when.positions if p < -int(lengths.min())]
            if early:
                raise InputError(
                    f"position {early[0]} lies before a prompt of {int(lengths.min())} tokens: "
                    f"give {-int(lengths.min())} or later"
                )
            found = edit.when.which(position, run.prompt)
            self.reached |= {(index, i) for i in set(found.flatten().tolist()) if i >= 0}

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
        here = [i for i, e in enumerate(self.edits) if e.site.layer == call.layer and self._possible(e, now)]
        if not here:
            return result
        mine, note = [self.edits[i] for i in here], self.note
        heads = sorted({edit.site.head for edit in mine})
        initial = None if call.initial is None else call.initial[:, heads]
        response, added = respond_to(
            call.stream.heads(heads), initial, mine, heads, now.tokens, now.position, now.run.prompt, now.run.row,
            None if note is None else lambda i, seen, acts: note(here[i], seen, acts),
        )  # fmt: skip
        if not bool(response.any()) and not bool(added.any()):
            return result  # nothing was added: the same bits as without edits
        if not (_measurable(added) and _measurable(response.to(result.output.dtype))):
            raise InputError(f"the state of layer {call.layer} overflows by {self._named(mine)}: lower the magnitude")
        output = result.output.float().index_add(2, torch.tensor(heads, device=response.device), response)
        final = result.final
        if final is not None:
            final = final.index_add(1, torch.tensor(heads, device=added.device), added.to(final.dtype))
        return result._replace(output=output, final=final)

    @staticmethod
    def _named(edits: Sequence[Edit]) -> str:
        return "the edit " + "; ".join(map(str, edits[:3])) + (f"; and {len(edits) - 3} more" if edits[3:] else "")

    @staticmethod
    def _possible(edit: Edit, now: _Pass) -> bool:
        if not isinstance(edit.when, At):
            return True
        return bool((edit.when.which(now.position, now.run.prompt) >= 0).any())


def _measurable(x: Tensor) -> bool:
    """Whether the squared length of every vector is finite: the norms that follow a recurrence square what they get,
    and what overflows there is divided to zero without a trace."""
    return bool(x.float().square().sum(-1).isfinite().all())


def respond_to(
    stream: Stream,
    initial: Tensor | None,
    edits: Sequence[Edit],
    heads: list[int],
    tokens: Tensor,
    position: Tensor,
    prompt: Tensor,
    row: Tensor,
    note: Note | None = None,
) -> tuple[Tensor, Tensor]:
    """Step a layer's stream with its edits.

    `stream` and `initial` (`[B, H, K, V]`, None for an empty state) hold only the edited `heads`; `tokens` and
    `position` are `[B, T]`, `prompt` and `row` `[B]`. Returns what is added to the outputs, `[B, T, H, V]`, and to the
    final state, `[B, H, K, V]`.
    """
    batch, time, count, d_k = stream.key.shape
    state = stream.key.new_zeros(batch, count, d_k, stream.value.shape[-1]) if initial is None else initial.float()
    added, reads = torch.zeros_like(state), []
    device = stream.key.device
    tokens, position, prompt, row = (x.to(device) for x in (tokens, position, prompt, row))
    for t in range(time):
        here = stream.map(lambda x, at=t: x[:, at])  # type: ignore[misc]
        update = None
        if here.rank_one:
            update = here.value
            if here.erase_gate is not None and here.erase_read is not None:
                update = update - here.erase_gate * torch.einsum("bhkv,bhk->bhv", state, here.erase_read)
        state = _step(here, state) + here.key[..., None] * here.value[..., None, :]
        added = _step(here, added)
        seen_by_reads = added
        for index, edit in enumerate(edits):
            j = heads.index(edit.site.head)
            seen = Seen(
                here.key[:, j], here.value[:, j], None if update is None else update[:, j], state[:, j],
                tokens[:, t], position[:, t], prompt, row,
            )  # fmt: skip
            acts = edit.when.now(seen) & (position[:, t] >= 0)
            if edit.row is not None:
                acts = acts & (row == edit.row)
            if not bool(acts.any()):
                continue
            if note is not None:
                note(index, seen, acts)
            matrix = edit.what.matrix(seen, edit.order(position[:, t], prompt))
            matrix = torch.where(acts[:, None, None], matrix, 0.0)
            whole = torch.nn.functional.one_hot(torch.tensor(j, device=device), count).to(matrix)
            spread = matrix[:, None] * whole[:, None, None]
            state, added = state + spread, added + spread
            if edit.timing == "at_token":
                seen_by_reads = seen_by_reads + spread
        reads.append(torch.einsum("bhkv,bhk->bhv", seen_by_reads, here.query))
    return torch.stack(reads, 1), added


def _step(here: Stream, state: Tensor) -> Tensor:
    """`diag(d_t) S - e_t (f_t^T S)` for one token (`[B, H, d]` tensors)."""
    after = here.log_decay.exp()[..., None] * state
    if here.erase is None:
        return after
    along, read = here.erase
    return after - along[..., None] * torch.einsum("bhk,bhkv->bhv", read, state)[..., None, :]


@contextmanager
def editing(host: Host, edits: Sequence[Edit], note: Note | None = None) -> Iterator[None]:
    """Make these edits in every forward pass of the host's model in this thread: plain calls, the model's own
    `generate`, with or without a cache, with beams or several samples of a prompt.

    Positions count from each row's first real token (left padding is told by `attention_mask`), and negative ones
    from the end of what a cache's first call runs, its prompt. `note` is told where edits act. Raises InputError for an
    edit that does not fit the host, a position that lies outside the text or is never reached, and a state that
    overflows.
    """
    for edit in edits:
        check_edit(host, edit)
    session = _Session(host, edits, note)
    with ExitStack() as stack:
        enter = host.model.register_forward_pre_hook(session.enter, with_kwargs=True)
        stack.callback(enter.remove)
        leave = host.model.register_forward_hook(session.leave, with_kwargs=True)
        stack.callback(leave.remove)
        stack.enter_context(patched(host.model, "generate", _counted))
        stack.enter_context(host.tap(Tap(after=session.after)))
        yield
    session.check_reached()
