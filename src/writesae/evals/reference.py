"""The slow, independent protocol: run the prefix, deep-copy the cache, edit the state in it, feed the next token.

Nothing of the forked-run engine or of the response is used here. It is what the fast path is tested against.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from writesae.hosts import Host
from writesae.hosts.caches import cache_argument, new_cache, read_state, write_state
from writesae.types import Protocol, Site


@torch.no_grad()
def cache_copy_logits(
    host: Host, tokens: Tensor, site: Site, position: int, edits: list[Tensor], timing: Protocol
) -> tuple[Tensor, list[Tensor]]:
    """Native logits and those of each edit at the scored position, `[vocabulary]` each, for one passage `[T]`.

    `edits` are full matrices `[K, V]` added to the head's state after token `position`. Under `at_token` the token
    must read the edited state itself, so the matrix that its own transition turns into the edit is added before it.
    """
    scored = position if timing == "at_token" else position + 1
    cache = new_cache(host)
    with host.tap():
        host.model(input_ids=tokens[None, :scored].to(host.device), logits_to_keep=1, **cache_argument(host, cache))
    if timing == "at_token":
        transition = _transition(host, tokens, site, position)
        edits = [torch.linalg.solve(transition, edit.double()).to(edit) for edit in edits]
    results = []
    for edit in [torch.zeros_like(edits[0]), *edits]:
        forked = copy.deepcopy(cache)
        state = read_state(host, forked, site.layer).clone()
        state[0, site.head] += edit
        write_state(host, forked, site.layer, state)
        with host.tap():
            out = host.model(
                input_ids=tokens[None, scored : scored + 1].to(host.device), **cache_argument(host, forked)
            )
        results.append(out.logits[0, -1])
    return results[0], results[1:]


def _transition(host: Host, tokens: Tensor, site: Site, position: int) -> Tensor:
    """`diag(d_t) - e_t f_t^T` of one head at one token, `[K, K]`, float64."""
    stream = host.record(tokens[None], [site.layer])[site.layer].heads(site.head)
    here = stream.map(lambda x: x[0, position, 0].double())
    matrix = torch.diag(here.log_decay.exp().expand(here.key.shape[-1]))
    return matrix if here.erase is None else matrix - torch.outer(*here.erase)
