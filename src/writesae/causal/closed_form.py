"""The closed form (the paper, appendix A): what a rank-1 write `v w^T` of a head does to a token's logit, as a product.

    decays of the tokens between  x  <v, q>  x  <W_O w, W_U[token]>

No erase terms, no gates, no norms, no layers between. The exact first order is in `gradients`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from writesae.hosts import Host
from writesae.hosts.output import head_columns, unembedding
from writesae.recurrence import Stream
from writesae.types import Site


@torch.no_grad()
def toward(host: Host, site: Site, tokens: Tensor) -> Tensor:
    """`W_O[head] W_U[token]` of tokens `[n]`: how much a value side moves each one's logit, `[n, V]`."""
    columns = head_columns(host, site.layer)[site.head].float()
    rows = unembedding(host)[tokens.to(host.device)].float()
    return rows.to(columns.device) @ columns.T


@torch.no_grad()
def direct_path(host: Host, site: Site, values: Tensor) -> Tensor:
    """`W_U W_O[head] w`: how much value sides `[n, V]` move every token's logit, `[n, vocabulary]`."""
    columns = head_columns(host, site.layer)[site.head].float()
    weight = unembedding(host).float()
    return (values.to(columns) @ columns).to(weight.device) @ weight.T


def pointed_at(host: Host, site: Site, value: Tensor) -> int:
    """The token whose logit a value side `[V]` moves most."""
    return int(direct_path(host, site, value[None]).argmax())


def closed_form(stream: Stream, step: int, v: Tensor, w: Tensor, towards: Tensor) -> Tensor:
    """The change of a logit by each of `N` writes, `[R, N]`.

    `stream` `[R, T, 1, d]` is the head's own from the written token on, which is read `step` tokens later; `v` is
    `[N, K]` or `[R, N, K]`, `w` `[N, V]` or `[R, N, V]`, and `towards` `[R, V]` is that of the row's token.
    """
    kept = stream.log_decay[:, 1 : step + 1, 0].sum(1).exp()
    read = (kept * stream.query[:, step, 0]).unsqueeze(-1)
    product: Tensor = (v @ read) * (w @ towards.to(read).unsqueeze(-1))
    return product.squeeze(-1)
