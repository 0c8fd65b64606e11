"""The slow, independent protocol: run the prefix, deep-copy the cache, edit the state in it, feed the next tokens.

Nothing of the forked-run engine or of the response is used here. It is what the fast path is tested against, on
every host whose cache can be copied.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from writesae.hosts import Host
from writesae.hosts.caches import new_cache, read_state, run_cached, write_state
from writesae.types import Protocol, Site


@torch.no_grad()
def cache_copy_logits(
    host: Host, tokens: Tensor, site: Site, position: int, edits: list[Tensor], timing: Protocol, horizon: int = 1
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
        transition = _transition(host, tokens, site, position)
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


def _transition(host: Host, tokens: Tensor, site: Site, position: int) -> Tensor:
    """`diag(d_t) - e_t f_t^T` of one head at one token, `[K, K]`, float64."""
    stream = host.record(tokens[None], [site.layer])[site.layer].heads(site.head)
    here = stream.map(lambda x: x[0, position, 0].double())
    matrix = torch.diag(here.log_decay.exp().expand(here.key.shape[-1]))
    return matrix if here.erase is None else matrix - torch.outer(*here.erase)
