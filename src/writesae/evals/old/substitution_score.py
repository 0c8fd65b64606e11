"""Scoring: what each condition puts in the place of the writes, and how far the next tokens move."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from writesae.causal.divergence import kl_divergence
from writesae.causal.patching import Edits, patched_logits
from writesae.evals.common.controls import Firings, ScoredHead, drawn
from writesae.evals.old.substitution_config import CONDITIONS, SubstitutionConfig
from writesae.evals.old.substitution_summary import step_column
from writesae.hosts.fork import NativeRun


def score_firings(run: NativeRun, heads: Sequence[ScoredHead], config: SubstitutionConfig, offset: int) -> pd.DataFrame:
    """One record a place and protocol; at a place every head is edited at once.

    The run is patched from the lowest of the heads' layers up. `offset` is the number of its first passage.
    """
    first = heads[0].firings
    names = (*CONDITIONS, *config.controls)
    layers = {head.site.layer for head in heads}
    edits = {layer: _edits([h for h in heads if h.site.layer == layer], config, offset) for layer in sorted(layers)}
    common = {
        "passage": first.passage + offset, "position": first.position,
        "token": run.tokens[first.passage, first.position], **_about(heads),
    }  # fmt: skip
    tables = []
    for timing in config.timings:
        kl = torch.empty(len(first.passage), len(names), config.horizon, dtype=torch.float64)
        moved = torch.empty(kl.shape[:2], dtype=torch.bool)
        for scored in patched_logits(run, edits, timing, config.horizon, config.memory):
            for which, native, patched in zip(scored.which.tolist(), scored.native, scored.patched, strict=True):
                kl[which] = kl_divergence(native, patched, config.direction).cpu()
                moved[which] = (patched[:, 0].argmax(-1) != native[0].argmax(-1)).cpu()
        columns = common | {f"kl_{name}": kl[:, i].mean(-1) for i, name in enumerate(names)}
        columns |= {f"top1_{name}": moved[:, i] for i, name in enumerate(names)}
        if config.horizon > 1:
            for step in range(config.horizon):
                columns |= {step_column(name, step + 1): kl[:, i, step] for i, name in enumerate(names)}
        table = pd.DataFrame({name: column.cpu().numpy() for name, column in columns.items()})
        tables.append(table.assign(protocol=timing))
    return pd.concat(tables, ignore_index=True)


def _about(heads: Sequence[ScoredHead]) -> dict[str, Tensor]:
    """What stands at each place: of one head, or of all together and of each under its name."""
    if len(heads) == 1:
        f = heads[0].firings
        return {
            "feature": f.feature, "coefficient": f.coefficient, "cosine": f.cosine, "write_norm": f.norm,
        }  # fmt: skip
    parts: list[Tensor] = []
    own: dict[str, Tensor] = {}
    for head in heads:
        f, site = head.firings, head.site
        edited = f.coefficient > 0
        contribution, norm = f.coefficient * f.atom_norm, f.norm * edited
        parts.append(torch.stack([contribution * norm * f.cosine, contribution**2, norm**2]))
        own |= {
            f"feature_{site}": f.feature, f"coefficient_{site}": f.coefficient, f"cosine_{site}": f.cosine,
            f"write_norm_{site}": f.norm,
        }  # fmt: skip
    overlap, atoms, writes = torch.stack(parts).sum(0)
    return {"cosine": overlap / (atoms * writes).sqrt().clamp_min(1e-30), "write_norm": writes.sqrt(), **own}


def _edits(heads: Sequence[ScoredHead], config: SubstitutionConfig, offset: int) -> Edits:
    """The edits of the heads of one layer: components native write, atom, random and controls of each in turn."""
    parts = [_head_edits(head, config, offset) for head in heads]
    firings, count = heads[0].firings, 3 + len(config.controls)
    key, value, weight = (torch.cat([part[i] for part in parts], -1 if i == 2 else 1) for i in range(3))
    return Edits(
        [head.site.head for head in heads for _ in range(count)], firings.passage, firings.position, key, value, weight,
        own=dict.fromkeys(range(0, count * len(heads), count), config.native_write),
    )  # fmt: skip


def _head_edits(head: ScoredHead, config: SubstitutionConfig, offset: int) -> tuple[Tensor, Tensor, Tensor]:
    """Keys `[R, M, K]`, values `[R, M, V]` and weights `[R, C, M]` of one head's components."""
    firings = head.firings
    random = drawn(head, "random", config.seed, offset)
    extra = [drawn(head, name, config.seed, offset) for name in config.controls]
    key = torch.stack([firings.key, firings.v, random.key, *(x.key for x in extra)], 1)
    value = torch.stack([firings.value, firings.w, random.value, *(x.value for x in extra)], 1)
    weight = _weights(firings, [x.size for x in extra])
    return key, value, weight * (firings.coefficient > 0)[:, None, None]


def _weights(firings: Firings, extra: list[Tensor]) -> Tensor:
    """Weights of (native write, atom, random, controls) a condition, `[R, C, M]`: each takes the native write away.

    The random matrix has unit norm, so at the atom's coefficient it is as large as the atom's contribution.
    """
    norm, atom_norm, coefficient = firings.norm, firings.atom_norm, firings.coefficient
    rows: dict[str, tuple[int, Tensor]] = {
        "atom": (1, coefficient),
        "atom_norm": (1, norm / atom_norm.clamp_min(1e-30)),
        "delete": (1, torch.zeros_like(norm)),
        "random": (2, coefficient * atom_norm),
        "random_norm": (2, norm),
    }
    lines = [*(rows[name] for name in CONDITIONS), *((3 + i, size) for i, size in enumerate(extra))]
    weight = norm.new_zeros(len(norm), len(lines), 3 + len(extra))
    weight[:, :, 0] = -1
    for line, (component, amount) in enumerate(lines):
        weight[:, line, component] = amount
    return weight
