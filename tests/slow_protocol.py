"""The slow, independent protocol: run the prefix, deep-copy the cache, edit the state in it, feed the next tokens.

Nothing of the forked-run engine or of the response is used here. It is what the fast path is tested against, on
every host whose cache can be copied.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from transformers import Cache

from references import delta_values_reference
from writesae.hosts import Host, KernelCall, Tap
from writesae.hosts.caches import new_cache, read_state, run_cached, write_state
from writesae.recurrence import Stream
from writesae.types import NativeWrite, Site, Timing


@torch.no_grad()
def cache_copy_logits(
    host: Host, tokens: Tensor, site: Site, position: int, edits: list[Tensor], timing: Timing, horizon: int = 1
) -> tuple[Tensor, list[Tensor]]:
    """Native logits and those of each edit for one passage `[T]`, `[horizon, vocabulary]` each.

    `edits` are full matrices `[K, V]` added to the head's state after token `position`. Scored are the next `horizon`
    tokens; under `at_token` the first of them is the edited token itself, which must read the edited state: the
    matrix that its own transition turns into the edit is then added before it.
    """
    scored = position if timing == "at_token" else position + 1
    cache = new_cache(host)
    with host.tap():
        run_cached(host, tokens[None, :scored], cache, 0, keep=1)
    if timing == "at_token":
        transition = transition_of(host, tokens, site, position)
        edits = [torch.linalg.solve(transition, edit.double()).to(edit) for edit in edits]
    results = []
    for edit in [torch.zeros_like(edits[0]), *edits]:
        forked = copy.deepcopy(cache)
        state = read_state(host, forked, site.layer).clone()
        state[0, site.head] += edit.to(state)
        write_state(host, forked, site.layer, state)
        with host.tap():
            results.append(run_cached(host, tokens[None, scored : scored + horizon], forked, scored)[0])
    return results[0], results[1:]


@torch.no_grad()
def joint_cache_copy_logits(
    host: Host,
    tokens: Tensor,
    position: int,
    conditions: list[dict[Site, Tensor]],
    timing: Timing,
    horizon: int = 1,
    native_write: NativeWrite = "delta",
) -> tuple[Tensor, list[Tensor]]:
    """Native logits and those of each condition for one passage `[T]`, `[horizon, vocabulary]` each.

    In a condition every head named writes its matrix `[K, V]` at token `position` in the place of what it writes in
    the edited run. Under `at_token` that takes one more run of the token for every further layer: only when the
    layers below are edited is it known what the next one writes.
    """
    scored = position if timing == "at_token" else position + 1
    cache = new_cache(host)
    with host.tap():
        run_cached(host, tokens[None, :scored], cache, 0, keep=1)
    results = []
    for condition in [{}, *conditions]:
        forked = copy.deepcopy(cache)
        for layer in sorted({site.layer for site in condition}):
            stream = _at_token(host, tokens, position, layer, forked if timing == "at_token" else None)
            state = read_state(host, forked, layer).clone()
            for site, matrix in condition.items():
                if site.layer == layer:
                    state[0, site.head] += edit_of(stream, state[0, site.head], site.head, matrix, timing, native_write)
            write_state(host, forked, layer, state)
        with host.tap():
            results.append(run_cached(host, tokens[None, scored : scored + horizon], forked, scored)[0])
    return results[0], results[1:]


def _at_token(host: Host, tokens: Tensor, position: int, layer: int, cache: Cache | None) -> Stream:
    """One layer's stream at a token, natively (`[1, position + 1, H, d]`, its last) or run from a copy of a cache."""
    if cache is None:
        return host.record(tokens[None, : position + 1], [layer])[layer]
    found: list[Stream] = []

    def before(call: KernelCall) -> None:
        if call.layer == layer:
            found.append(call.stream)

    with host.tap(Tap(before=before)):
        run_cached(host, tokens[None, position : position + 1], copy.deepcopy(cache), position)
    return found[0]


def edit_of(
    stream: Stream, state: Tensor, head: int, matrix: Tensor, timing: Timing, native_write: NativeWrite
) -> Tensor:
    """What to add to a head's state so that its token's write becomes `matrix`."""
    own = stream.heads(head)
    here = own.map(lambda x: x[0, -1, 0].double())
    value = here.value
    if native_write == "delta" and timing == "after_token":
        value = delta_values_reference(own)[0, -1, 0].double()
    elif native_write == "delta" and here.erase_gate is not None and here.erase_read is not None:
        value = value - here.erase_gate * (here.erase_read @ state.double())
    edit = matrix.double() - torch.outer(here.key, value)
    if timing == "at_token":
        edit = torch.linalg.solve(_matrix(here), edit)
    return edit.to(state)


def transition_of(host: Host, tokens: Tensor, site: Site, position: int) -> Tensor:
    """`diag(d_t) - e_t f_t^T` of one head at one token, `[K, K]`, float64."""
    stream = host.record(tokens[None], [site.layer])[site.layer].heads(site.head)
    return _matrix(stream.map(lambda x: x[0, position, 0].double()))


def _matrix(here: Stream) -> Tensor:
    """The transition of a stream of one token and head, all tensors `[d]`."""
    matrix = torch.diag(here.log_decay.exp().expand(here.key.shape[-1]))
    return matrix if here.erase is None else matrix - torch.outer(*here.erase)
