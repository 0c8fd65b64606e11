"""What attribution says that every write gives a fact's answer, and at which rank a fact's binding write stands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from writesae.attribution.effects import write_effects
from writesae.causal.budget import passages_at_once
from writesae.causal.closed_form import toward
from writesae.causal.gradients import forward
from writesae.causal.writes import stream_writes
from writesae.corpus.facts import FactPassages
from writesae.evals.recall.changed import Cell, written_form
from writesae.hosts import Host
from writesae.recurrence import Stream
from writesae.types import Site, Timing

Prices = dict[int, Tensor]
"""Layer -> what each write gives each fact's answer at its question, `[B, F, T, H]`; 0 at tokens behind that."""


def prices(host: Host, passages: FactPassages, timing: Timing = "after_token") -> tuple[Prices, Prices]:
    """By the exact first order, of the answer's log odds (one backward pass a fact), and by the closed form, of its
    logit."""
    count, length = passages.tokens.shape
    facts, layers = passages.asked.shape[1], list(host.layers)
    at_once = passages_at_once(host, length * facts, min(layers), read=facts, graph=True)
    parts = [_some(host, passages[begin : begin + at_once], timing) for begin in range(0, count, at_once)]
    return tuple({layer: torch.cat([part[i][layer] for part in parts]) for layer in layers} for i in (0, 1))  # type: ignore[return-value]


def log_odds(logits: Tensor, token: Tensor) -> Tensor:
    """Of a token against all others, `[B]`: its log probability has the same gradient but for a factor, which vanishes
    where the token is sure."""
    index = token.unsqueeze(-1)
    others = logits.scatter(-1, index, -torch.inf).logsumexp(-1)
    odds: Tensor = logits.gather(-1, index).squeeze(-1) - others
    return odds


def _some(host: Host, passages: FactPassages, timing: Timing) -> tuple[Prices, Prices]:
    tokens, asked, thing = (torch.from_numpy(x) for x in (passages.tokens, passages.asked, passages.thing))
    rows, facts = asked.shape
    form, run = written_form(host), forward(host, tokens, list(host.layers), keep=asked)
    grads = []
    for fact in range(facts):
        with torch.enable_grad():
            score = log_odds(run.logits[:, fact], thing[:, fact].to(run.logits.device))
        grads.append(run.gradients(score, again=fact < facts - 1))
    exact, closed = Prices(), Prices()
    for layer, stream in run.streams.items():
        grad = torch.stack([found[layer] for found in grads], 1).flatten(0, 1)
        each = stream.map(lambda x: x.repeat_interleave(facts, 0))
        effects = write_effects(each, grad, timing, form)
        exact[layer] = effects.view(rows, facts, *effects.shape[1:]).cpu()
        heads = [
            closed_prices(host, Site(layer, head), stream.heads(head), asked, thing, timing)
            for head in range(stream.key.shape[2])
        ]
        closed[layer] = torch.stack(heads, -1).cpu()
    return exact, closed


@torch.no_grad()
def closed_prices(host: Host, site: Site, stream: Stream, asked: Tensor, token: Tensor, timing: Timing) -> Tensor:
    """`causal.closed_form` of every native write of one head `[B, T, 1, d]`, read at `asked` `[B, F]` for the logit of
    `token` `[B, F]`: `[B, F, T]`."""
    key, value = stream.key[:, :, 0], stream_writes(stream).side(written_form(host))
    kept, rows = stream.log_decay[:, :, 0].cumsum(1), torch.arange(len(key), device=key.device)[:, None]
    asked = asked.to(key.device)
    towards = toward(host, site, token.flatten()).view(*token.shape, -1).to(value)
    decay = (kept[rows, asked].unsqueeze(2) - kept.unsqueeze(1)).clamp(max=0).exp()  # [B, F, T, K or 1]
    read = decay * stream.query[:, :, 0][rows, asked].unsqueeze(2)
    found: Tensor = (read * key.unsqueeze(1)).sum(-1) * torch.einsum("btv,bfv->bft", value, towards)
    behind = torch.arange(key.shape[1], device=key.device) - asked.unsqueeze(-1)
    return found.masked_fill(behind > (0 if timing == "at_token" else -1), 0.0)


def ranked(passages: FactPassages, prices: Prices, cells: Sequence[Cell]) -> pd.DataFrame:
    """Where the binding writes stand among all writes before the answer, largest first, a row a fact that stands:
    `passage`, `fact`, `rank` of the first of them (1 is the largest of all), and `writes`, how many there are."""
    layers = list(prices)
    heads = {layer: prices[layer].shape[-1] for layer in layers}
    asked, begin = torch.from_numpy(passages.asked), torch.from_numpy(passages.begin)
    inside = torch.arange(passages.tokens.shape[1]) <= asked.unsqueeze(-1)  # [B, F, T]
    every = torch.cat([prices[layer].masked_fill(~inside.unsqueeze(-1), -torch.inf).flatten(2) for layer in layers], -1)
    row, fact = torch.meshgrid(*(torch.arange(n) for n in asked.shape), indexing="ij")
    own = torch.stack([prices[c.site.layer][row, fact, begin + c.offset, c.site.head] for c in cells], -1)
    rank = (every > own.max(-1, keepdim=True).values).sum(-1) + 1
    writes = (asked + 1) * sum(heads.values())
    passage, number = (torch.from_numpy(x) for x in np.nonzero(passages.stands))
    table = {"passage": passage, "fact": number, "rank": rank[passage, number], "writes": writes[passage, number]}
    return pd.DataFrame({name: column.numpy() for name, column in table.items()})
