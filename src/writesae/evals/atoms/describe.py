"""What can be said of atoms without running the model again: rates, contexts, neighbours."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from writesae.evals.atoms import AtomsConfig
from writesae.hosts import Host
from writesae.sae import SAE

BINS = 24
"""Bars of an atom's activation histogram."""


def rates(fired: pd.DataFrame, alive: list[int], sae: SAE, tokens: int) -> pd.DataFrame:
    """One row an atom: how often and how strongly it fires, how alike it is to the writes it fires on, its sides."""
    own = fired[fired.feature.isin(alive)]
    by = own.groupby("feature")
    table = pd.DataFrame(
        {
            "firings": by.size(),
            "rate": by.size() / tokens,
            "top": own[own.order == 0].groupby("feature").size() / tokens,
            "coefficient": by.coefficient.mean(),
            "largest": by.coefficient.max(),
            "cosine": by.cosine.median(),
        }
    ).reindex(alive)
    table["top"] = table.top.fillna(0.0)
    groups = (by.get_group(feature).coefficient.to_numpy() for feature in alive)
    bars = [np.histogram(values, BINS, (0.0, float(values.max())))[0] for values in groups]
    table["histogram"] = pd.Series(bars, table.index)
    atoms = sae.atoms()
    for name, side in (("v", atoms.v), ("w", atoms.w)):
        table[name] = pd.Series(list(side[alive].detach().float().cpu().numpy()), table.index)
    return table.rename_axis("feature").reset_index()


def nearest(sae: SAE, alive: list[int], most: int) -> pd.DataFrame:
    """The atoms of the same dictionary that are most alike: `neighbours` and their `neighbour_cosine`, lists."""
    atoms = sae.atoms()
    v, w = (torch.nn.functional.normalize(x.detach().float(), dim=-1) for x in (atoms.v, atoms.w))
    found = []
    for feature in alive:
        cosine = (v @ v[feature]) * (w @ w[feature])
        cosine[feature] = -2.0
        best = cosine.topk(min(most, len(cosine) - 1))
        found.append((feature, best.indices.cpu().numpy(), best.values.cpu().numpy()))
    return pd.DataFrame(found, columns=["feature", "neighbours", "neighbour_cosine"])


def together(fired: pd.DataFrame, alive: list[int], tokens: Tensor, most: int) -> pd.DataFrame:
    """The features that fire at the same tokens most beyond chance: `companions` and `lift`, lists.

    The lift is the share of the atom's firings at which the other fires too, over the other's share of all tokens;
    pairs that meet fewer than three times are left out.
    """
    length, features = tokens.shape[1], int(fired.feature.max()) + 1
    place = fired.passage.to_numpy() * length + fired.position.to_numpy()
    ones = np.ones(len(fired))
    active = csr_matrix((ones, (place, fired.feature.to_numpy())), (tokens.numel(), features))
    total = np.asarray(active.sum(0)).ravel()
    found = []
    for feature in alive:
        met = np.asarray((active[:, [feature]].T @ active).todense()).ravel()
        met[feature] = 0
        lift = np.where(met >= 3, met / total[feature] / np.maximum(total / tokens.numel(), 1e-30), 0.0)
        best = np.argsort(-lift, kind="stable")[:most]
        best = best[lift[best] > 0]
        found.append((feature, best, lift[best]))
    return pd.DataFrame(found, columns=["feature", "companions", "lift"])


def contexts(host: Host, fired: pd.DataFrame, alive: list[int], tokens: Tensor, config: AtomsConfig) -> pd.DataFrame:
    """Firings in their text at quantiles of the activation; `place` is the firing's index in the context's `tokens`."""
    rows: list[tuple[object, ...]] = []
    texts: dict[int, str] = {}

    def text(token: int) -> str:
        if token not in texts:
            texts[token] = host.text([token])
        return texts[token]

    by = fired.groupby("feature")
    for feature in alive:
        own = by.get_group(feature).sort_values(["coefficient", "passage", "position"], ascending=[False, True, True])
        at = {(p, t): c for p, t, c in zip(own.passage, own.position, own.coefficient, strict=True)}
        used: set[int] = set()
        for quantile in config.quantiles:
            start = round((1 - quantile) * (len(own) - 1))
            nearby = own.iloc[start:].drop_duplicates("passage")
            for passage, position, coefficient in zip(nearby.passage, nearby.position, nearby.coefficient, strict=True):
                if sum(row[1] == quantile and row[0] == feature for row in rows[-config.contexts :]) >= config.contexts:
                    break
                if passage in used and len(nearby) > len(used):
                    continue
                used.add(passage)
                begin, end = max(0, position - config.before), min(tokens.shape[1], position + config.after + 1)
                values = [float(at.get((passage, t), 0.0)) for t in range(begin, end)]
                window = [text(int(i)) for i in tokens[passage, begin:end]]
                rows.append((feature, quantile, passage, position, coefficient, position - begin, window, values))
    names = ["feature", "quantile", "passage", "position", "coefficient", "place", "tokens", "values"]
    return pd.DataFrame(rows, columns=names)
