"""A made-up but consistent result of every evaluation: records drawn here, summaries by the evaluations' own code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from writesae.evals.catalogue import EVALUATIONS, AnyResult
from writesae.evals.configs import config_class
from writesae.evals.provenance import Provenance
from writesae.evals.result import Result, Stored

HOSTILE = "</script><img src=x onerror=alert(1)>%{y}"
"""Stands wherever a result may hold text that somebody else chose."""

Tables = dict[str, pd.DataFrame]


def fake(name: str, seed: int = 3, size: int = 1) -> AnyResult:
    """A result; `size` multiplies how many records it has."""
    config = config_class(name)()
    tables = TABLES[name](np.random.default_rng(seed), size)
    refused = {f"too few {HOSTILE}": 5}
    summary = EVALUATIONS[name].summarise(Stored(name, config, refused, tables))
    digests = () if name == "spectrum" else ("5ae0" * 16,) * (3 if name == "seeds" else 1)
    site = "all" if name == "spectrum" else "L5.H0"
    source = Provenance("tiny-gdn", HOSTILE, site, digests, "c0de" * 16)
    records = tables.pop("records")
    return Result(name, source, config, len(records) + 5, refused, summary, records, tables)


def write_fake_results(folder: Path, seed: int = 3, size: int = 1) -> Path:
    """The folder of every evaluation, at two depths."""
    for i, name in enumerate(EVALUATIONS):
        fake(name, seed, size).write(folder / name if i % 2 else folder / "more" / name)
    return folder


def _kls(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    delete = np.exp(rng.normal(-5, 1.7, n))
    shifts = {"atom": -0.8, "atom_norm": -0.4, "delete": 0.0, "random": 0.6, "random_norm": 0.9, "pca": -0.1}
    spread = {name: 0.0 if name == "delete" else 0.9 for name in shifts}
    kls = {f"kl_{name}": delete * np.exp(rng.normal(shift, spread[name], n)) for name, shift in shifts.items()}
    return kls | {f"top1_{name}": rng.random(n) < 0.03 for name in shifts}


def _firings(rng: np.random.Generator, n: int, features: int, timing: str) -> pd.DataFrame:
    about = {
        "passage": np.arange(n) // 7,
        "position": rng.integers(1, 61, n),
        "token": rng.integers(0, 997, n),
        "feature": rng.integers(0, features, n),
        "coefficient": rng.gamma(3.0, 0.4, n),
        "cosine": np.tanh(rng.normal(0.6, 0.3, n)),
        "write_norm": rng.gamma(3.0, 0.1, n),
        "protocol": timing,
    }
    return pd.DataFrame(about | _kls(rng, n))


def _substitution(rng: np.random.Generator, size: int) -> Tables:
    parts = [_firings(rng, 103 * size, 41, timing) for timing in ("after_token", "at_token")]
    return {"records": pd.concat(parts, ignore_index=True).assign(token_text=HOSTILE, context=f"before {HOSTILE}")}


def _population(rng: np.random.Generator, size: int) -> Tables:
    records = _firings(rng, 211 * size, 31, "after_token")
    records["class"] = np.where(records.feature < 11, "register", "bundle")
    records["atom_cosine"] = np.where(records.feature < 11, 0.5, 0.25) + records.feature / 997
    return {"records": records.assign(per_10k=records.feature / 3 + 1)}


def _partition(rng: np.random.Generator, size: int) -> Tables:
    n, tables = 127 * size, []
    cosine = np.where(rng.random(n) < 0.3, rng.normal(0.6, 0.07, n), rng.normal(0.25, 0.05, n))
    fires = rng.random(n) < 0.9
    for k in (0, 1, 2, 4, 8, 16):
        table = {"feature": range(n), "firings": np.where(fires, 7, 0), "cosine": np.where(fires, cosine, np.nan)}
        tables.append(pd.DataFrame(table | {"coefficient": rng.gamma(3.0, 0.4, n), "k": k}))
    return {"records": pd.concat(tables, ignore_index=True)}


def _logit_shift(rng: np.random.Generator, size: int) -> Tables:
    grid = [
        (timing, epsilon, horizon, rank)
        for timing in ("after_token", "at_token")
        for epsilon in (0.03, 0.1, 0.3, 1.0)
        for horizon in (1, 4)
        for rank in (0, 9, 99)
    ]
    tables = []
    for timing, epsilon, horizon, rank in grid:
        n = 7 * 11 * size
        measured = epsilon * rng.normal(0, 0.1, n)
        columns = {
            "feature": np.arange(n) % 7,
            "passage": np.arange(n) // 7,
            "position": 3,
            "token": 5,
            "measured": measured,
            "noise": rng.normal(0, 1e-7, n),
            "closed": 0.1 * rng.normal(0, 0.1, n) * epsilon,
            "direct": measured * 0.8 + epsilon * rng.normal(0, 0.05, n),
            "exact": measured * (1 + 0.1 * epsilon * rng.normal(0, 1, n)),
        }
        cell = {"epsilon": epsilon, "horizon": horizon, "rank": rank, "protocol": timing, "precision": "float32"}
        tables.append(pd.DataFrame(columns | cell))
    return {"records": pd.concat(tables, ignore_index=True)}


def _fidelity(rng: np.random.Generator, size: int) -> Tables:
    n = 19 * size
    native = rng.normal(230, 11, n)
    records = pd.DataFrame({"passage": range(n), "tokens": 61, "nll_native": native})
    records["nll_reconstruction"] = native + rng.normal(1.1, 0.5, n)
    records["nll_zero"] = native + rng.normal(5.3, 1.5, n)
    return {"records": records, "scopes": records.assign(scope="L5.H0")}


def _passage_loss(rng: np.random.Generator, size: int) -> Tables:
    n = 23 * size
    native = rng.normal(460, 11, n)
    records = pd.DataFrame(
        {"passage": range(n), "firings": rng.integers(1, 31, n), "tokens": 127, "nll_native": native}
    )
    for name, cost in (("atom", 0.5), ("delete", 1.1), ("random_norm", 1.9)):
        records[f"nll_{name}"] = native + rng.normal(cost, 0.7, n)
    return {"records": records}


def _quality(rng: np.random.Generator, size: int) -> Tables:
    n, passages = 251 * size, 13
    firings = np.where(rng.random(n) < 0.9, rng.geometric(0.02, n), 0)
    records = pd.DataFrame({"feature": range(n), "firings": firings, "coefficient": rng.gamma(3.0, 0.4, n)})
    table = pd.DataFrame({"passage": range(passages), "tokens": 127, "entries": 127 * 31 * 37, "active": 127 * 11})
    table["variance"] = rng.gamma(30.0, 1.0, passages)
    table["error"] = table.variance * rng.uniform(0.1, 0.4, passages)
    return {"records": records, "passages": table}


def _seeds(rng: np.random.Generator, size: int) -> Tables:
    tables = []
    for dictionary in range(3):
        for other in range(3):
            n = (53 + dictionary) * size
            best = 1 - rng.gamma(1.5, 0.1, n).clip(0, 1)
            kinds = np.where(np.arange(n) % 5 == 0, "register", "bundle")
            columns = {"feature": range(n), "class": kinds, "best": best, "assigned": best * 0.97}
            if dictionary != other:
                tables.append(pd.DataFrame(columns).assign(dictionary=dictionary, other=other))
    return {"records": pd.concat(tables, ignore_index=True)}


def _spectrum(rng: np.random.Generator, size: int) -> Tables:
    rows, writes = [], []
    for layer in (0, 1, 4):
        for head in range(5):
            singular = np.sort(rng.gamma(1.0, 1.0, 7))[::-1]
            norm = float(np.sqrt((singular**2).sum()))
            share, kl = float(rng.uniform(0.05, 1)), float(np.exp(rng.normal(-6, 2)))
            one = {"layer": layer, "head": head, "write_share": share, "delete_kl": kl}
            one["stable_rank"] = float(norm**2 / singular[0] ** 2)
            profile = (singular / norm).tolist()
            rows.append(one | {"decay": float(rng.uniform(0.1, 1)), "singular_values": profile})
            writes += [one | {"state_norm": norm, "singular_values": singular.tolist()}] * 3
    records = pd.DataFrame(rows)
    best = records[records.write_share <= 0.5].delete_kl.idxmax()
    return {"records": records.assign(chosen=records.index == best), "writes": pd.DataFrame(writes)}


def _selectivity(rng: np.random.Generator, size: int) -> Tables:
    n = 29 * 8 * size
    shares = {f"overlap_{name}": rng.integers(0, 9, n) / 32 for name in ("random", "orthogonal")}
    return {"records": pd.DataFrame({"passage": np.arange(n) // 8, "feature": np.arange(n) % 29} | shares)}


def _readers(rng: np.random.Generator, size: int) -> Tables:
    rows = [
        {"passage": i, "position": 3, "feature": f, "reader": f"L{layer}.H{head}", "atom": a, "random": b}
        for f in range(13 * size)
        for layer in (6, 8)
        for head in range(5)
        for i, (a, b) in enumerate(np.exp(rng.normal(-9, 0.5, (3, 2))).tolist())
    ]
    return {"records": pd.DataFrame(rows)}


def _boundary(rng: np.random.Generator, size: int) -> Tables:
    n = 151 * size
    firings = np.where(rng.random(n) < 0.9, rng.integers(2, 400, n), 0)
    fires, auroc = firings > 0, 0.5 + 0.05 * rng.normal(0, 1, n)
    columns = {
        "feature": range(n),
        "firings_inside": firings // 3,
        "firings": firings,
        "auroc": np.where(fires, auroc, np.nan),
        "p_raw": np.where(fires, 0.5, np.nan),
        "p": np.where(fires, np.where(auroc > 0.58, 1e-5, 1.0), np.nan),
    }
    return {"records": pd.DataFrame(columns).assign(inside=307, outside=1741)}


TABLES: dict[str, Callable[[np.random.Generator, int], Tables]] = {
    "substitution": _substitution,
    "population": _population,
    "partition": _partition,
    "logit_shift": _logit_shift,
    "fidelity": _fidelity,
    "passage_loss": _passage_loss,
    "quality": _quality,
    "seeds": _seeds,
    "spectrum": _spectrum,
    "selectivity": _selectivity,
    "readers": _readers,
    "boundary": _boundary,
}

if __name__ == "__main__":
    import sys

    from writesae.page import write_report

    print(write_report(write_fake_results(Path(sys.argv[1]), size=3)))
