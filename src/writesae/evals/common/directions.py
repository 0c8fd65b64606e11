"""An atom and matched directions, each added to the state at the size of the native write."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch

from writesae.causal.patching import Edits
from writesae.causal.writes import head_writes
from writesae.evals.common.controls import normalize
from writesae.evals.common.draws import generator_for
from writesae.hosts.fork import NativeRun
from writesae.sae import SAE
from writesae.types import NativeWrite, Site


def directions(
    run: NativeRun, sae: SAE, site: Site, here: pd.DataFrame, names: Sequence[str], forms: Sequence[NativeWrite],
    seed: int, offset: int = 0,
) -> Edits:  # fmt: skip
    """Every name of `ADDED` that is asked for at each firing, in the Frobenius norm of the native write of the first
    form, then the same in that of the next.

    `offset` is the number of the run's first passage. What is random is drawn passage by passage.
    """
    numbers, position, feature = (torch.tensor(here[c].to_numpy()) for c in ("passage", "position", "feature"))
    passage, writes, atoms = numbers - offset, head_writes(run, site.head), sae.atoms()
    v, w = normalize(atoms.v[feature]), normalize(atoms.w[feature])
    keys, values = [], []
    for name in names:
        x, y = v.clone(), w.clone()
        for number in torch.unique(numbers).tolist() if name != "atom" else ():
            mine, generator = numbers == number, generator_for(seed, str(site), number, name)
            for side in (x, y):
                side[mine] = torch.randn(side[mine].shape, generator=generator).to(side)
        x, y = normalize(x), normalize(y)
        if name == "orthogonal_to_atom":
            x, y = (normalize(a - (a * b).sum(-1, keepdim=True) * b) for a, b in ((x, v), (y, w)))
        keys.append(x)
        values.append(y)
    key = writes.written.key[passage, position].norm(dim=-1)
    norms = [key * writes.side(form)[passage, position].norm(dim=-1) for form in forms]
    weight = torch.cat([torch.eye(len(names)) * norm.cpu()[:, None, None] for norm in norms], 1)
    return Edits([site.head] * len(names), passage, position, torch.stack(keys, 1), torch.stack(values, 1), weight)
