"""Deterministic run folders in the shape that quickstart writes, for the report's tests and for looking at the page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

PROSE = (
    "Call me Ishmael. Some years ago, never mind how long precisely, having little or no money in my purse, and "
    "nothing particular to interest me on shore, I thought I would sail about a little and see the watery part "
    "of the world. It is a way I have of driving off the spleen and regulating the circulation. Whenever I find "
    "myself growing grim about the mouth; whenever it is a damp, drizzly November in my soul; whenever I find "
    "myself involuntarily pausing before coffin warehouses, and bringing up the rear of every funeral I meet, "
    "then, I account it high time to get to sea as soon as I can.\nThis is my substitute for pistol and ball. "
    "There is nothing surprising in this."
)
HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "a & b \"quoted\" 'single' {{ 7 * 7 }} %{y}",
    "right\u202eto\u2066left\x00end\t",
    "\n\n",
    "   ",
)

Record = Mapping[str, object]


def write_fake_run(folder: Path, firings: int = 211, atoms: int = 7, seed: int = 3, hostile: bool = True) -> Path:
    """Write every result file of a run with made-up but plausible numbers."""
    rng = np.random.default_rng(seed)
    tokens = PROSE.replace(" ", " \u0120").split(" ")
    tokens = [token.replace("\u0120", " ") for token in tokens]
    substitution, alive, explained = {}, {}, {}
    for target, shift in (("state", 0.55), ("write", 0.2)):
        rows, substitution[target] = _substitution(rng, tokens, firings, shift, hostile)
        _parquet(folder / "substitution" / f"{target}.parquet", rows)
        history = _history(rng, shift)
        _write(folder / "train" / target / "history.jsonl", "".join(json.dumps(row) + "\n" for row in history))
        alive[target], explained[target] = history[-1]["alive"], history[-1]["explained_variance"]
        cards = [_atom(rng, tokens, rank, hostile) for rank in range(atoms)]
        _write(folder / "atoms" / f"{target}.json", json.dumps(cards))
    _parquet(folder / "spectrum.parquet", _heads(rng))
    summary = {
        "host": {"name": "tiny-gdn", "revision": "5f0c6a1e" * 8},
        "site": "L5.H0",
        "tokens": 98304,
        "features": 509,
        "k": 11,
        "alive": alive,
        "protocol": {
            "timing": "after_token",
            "native_write": "delta",
            "kl": "KL(native || patched), nats",
            "scored": "next token",
        },
        "explained_variance": explained,
        "substitution": substitution,
        "seconds": {"spectrum": 6.1, "capture": 9.7, "train": 41.2, "substitution": 22.4, "atoms": 5.3},
        "report": "report.html",
        "seed": seed,
        "versions": {"writesae": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0", "python": "3.11.7"},
        "hashes": {"corpus": "c0ffee11" * 8, "store": "0badf00d" * 8, "sae": {"state": "a1" * 32, "write": "b2" * 32}},
    }
    _write(folder / "summary.json", json.dumps(summary, indent=2))
    return folder


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _parquet(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def _substitution(
    rng: np.random.Generator, tokens: list[str], firings: int, shift: float, hostile: bool
) -> tuple[list[dict[str, object]], dict[str, object]]:
    rows: list[dict[str, object]] = []
    outcomes = {}
    for protocol, scale in (("after_token", 0.0), ("at_token", 0.8)):
        delete = np.exp(rng.normal(-5.0 + scale, 1.7, firings))
        kl = {
            "kl_atom": delete * np.exp(rng.normal(-1.5 * shift, 0.9, firings)),
            "kl_atom_norm": delete * np.exp(rng.normal(-1.1 * shift, 0.9, firings)),
            "kl_delete": delete,
            "kl_random": delete * np.exp(rng.normal(0.9, 0.7, firings)),
            "kl_random_norm": delete * np.exp(rng.normal(0.7, 0.6, firings)),
        }
        kl["kl_atom"][:2] = 0.0
        for i in range(firings):
            end = 3 + (37 * i) % (len(tokens) - 4)
            token = HOSTILE[i] if hostile and i < len(HOSTILE) else tokens[end]
            rows.append(
                {
                    "passage": i // 5,
                    "position": end,
                    "token": int(rng.integers(4096)),
                    "token_text": token,
                    "feature": int(rng.integers(509)),
                    "coefficient": float(rng.gamma(3.0, 0.4)),
                    "cosine": float(np.tanh(rng.normal(0.9, 0.4))),
                    "protocol": protocol,
                    "context": "".join(tokens[max(0, end - 24) : end]) + token,
                }
                | {name: float(column[i]) for name, column in kl.items()}
            )
        outcomes[protocol] = _outcome(kl, protocol)
    return rows, outcomes["after_token"] | {"by_protocol": outcomes}


def _outcome(kl: dict[str, np.ndarray], protocol: str) -> dict[str, object]:
    n = len(kl["kl_atom"])
    win = float((kl["kl_atom"] < kl["kl_delete"]).mean())
    norm = float((kl["kl_atom_norm"] < kl["kl_delete"]).mean())
    chain = float(((kl["kl_atom"] < kl["kl_delete"]) & (kl["kl_delete"] < kl["kl_random"])).mean())

    def around(rate: float, width: float) -> list[float]:
        half = width * (rate * (1 - rate) / n) ** 0.5
        return [max(0.0, rate - half), min(1.0, rate + half)]

    return {
        "n": n,
        "attempted": n + 6,
        "refused": {"too close to the end": 5, "zero coefficient": 1},
        "win_rate": win,
        "interval": around(win, 1.96),
        "interval_clustered": around(win, 3.1),
        "win_rate_norm": norm,
        "interval_norm": around(norm, 1.96),
        "strict_chain": chain,
        "median_cosine": 0.713,
        "median_kl": {name.removeprefix("kl_"): float(np.median(column)) for name, column in kl.items()},
        "protocol": protocol,
    }


def _history(rng: np.random.Generator, shift: float) -> list[dict[str, float | None]]:
    rows: list[dict[str, float | None]] = []
    for step in range(20, 1201, 20):
        ev = 0.93 - 0.3 * (1 - shift) - (0.9 - 0.2 * shift) * float(np.exp(-step / 160))
        ev += float(rng.normal(0, 0.004))
        rows.append(
            {
                "step": step,
                "tokens": step * 256,
                "loss": 1 - ev,
                "mse": 0.002 * (1 - ev),
                "explained_variance": ev,
                "held_out": ev - 0.02 if step % 120 == 0 else None,
                "alive": int(509 - 150 * (1 - np.exp(-step / 300)) + 20 * np.sin(step / 90)),
                "seconds": step * 0.017,
            }
        )
    return rows


def _heads(rng: np.random.Generator) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for layer in (0, 1, 2, 4, 5, 6):
        for head in range(6):
            decay = float(1 - np.exp(rng.normal(-3, 1.1)))
            rows.append(
                {
                    "layer": layer,
                    "head": head,
                    "decay": decay,
                    "write_share": float(np.clip((1 - decay) ** 0.5 * rng.uniform(0.7, 1.3), 0, 1)),
                    "stable_rank": float(1 + rng.gamma(2.0, 1.1)),
                    "delete_kl": float(np.exp(rng.normal(-6, 1.8))),
                    "chosen": (layer, head) == (5, 0),
                }
            )
    return rows


def _atom(rng: np.random.Generator, tokens: list[str], rank: int, hostile: bool) -> dict[str, object]:
    delete = float(np.exp(rng.normal(-4, 1)))
    contexts = []
    for i in range(6):
        at = int(rng.integers(12, len(tokens) - 9))
        token = HOSTILE[(rank + i) % len(HOSTILE)] if hostile and i == 5 else tokens[at]
        contexts.append(
            {
                "before": "".join(tokens[at - 12 : at]),
                "token": token,
                "after": "".join(tokens[at + 1 : at + 8]),
                "coefficient": float(2.6 * 0.88**i * rng.uniform(0.97, 1.0)),
            }
        )
    words = [str(word) for word in rng.choice([t for t in tokens if t.strip()], 16, replace=False)]
    scores = np.sort(rng.gamma(2.0, 0.5, 16))[::-1]
    scored = [{"token": word, "score": float(score)} for word, score in zip(words, scores, strict=True)]
    return {
        "feature": int(rng.integers(509)) if rank else 137,
        "firings": int(900 / (rank + 1)) + 13,
        "frequency": 0.021 / (rank + 1),
        "mean_coefficient": float(rng.gamma(3.0, 0.4)),
        "cosine": float(np.tanh(rng.normal(0.9, 0.3))),
        "v": rng.normal(0, 0.19, 31).round(4).tolist(),
        "w": rng.normal(0, 0.17, 37).round(4).tolist(),
        "kl": {"atom": delete * 0.4, "delete": delete, "random": delete * 2.3}
        if rank != 3
        else {"atom": None, "delete": None, "random": None},
        "win_rate": float(rng.uniform(0.55, 0.97)) if rank != 3 else None,
        "contexts": contexts,
        "promotes": scored[:8],
        "suppresses": [{**item, "score": -float(str(item["score"]))} for item in scored[8:]],
    }


if __name__ == "__main__":
    import sys

    from writesae.page import write_report

    print(write_report(write_fake_run(Path(sys.argv[1]), firings=1201, atoms=23)))
