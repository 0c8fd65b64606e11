"""At random tokens of every layer: the state's singular values, and what deleting the token's write does.

A token's write is its delta write, all that it adds to the decayed state. Where a token adds two rank-1 matrices
(RWKV-7) there is no such thing, and the native write `b k v^T` is deleted: the records say which it was. The channels
of Mamba-1, heads of one number each, are measured as one matrix a layer.
"""

from __future__ import annotations

from functools import partial

import pandas as pd
import torch
from torch import Tensor

from writesae.causal.divergence import kl_divergence
from writesae.causal.patching import Edits, patched_logits
from writesae.causal.runs import native_runs
from writesae.errors import InputError
from writesae.evals.common.draws import generator_for
from writesae.evals.common.pieces import Keep, Measured, concatenated
from writesae.evals.common.subject import Subject
from writesae.evals.spectrum import SpectrumConfig
from writesae.evals.spectrum.summary import heads_of
from writesae.hosts import Host
from writesae.hosts.fork import NativeRun
from writesae.recurrence import delta_values, replay


def measure(subject: Subject, config: SpectrumConfig, keep: Keep) -> Measured:
    """A record is a head, a row of the table `writes` a head and deleted write. Raises InputError for passages too
    short to leave a next token to score."""
    host, tokens = subject.host, subject.tokens
    if tokens.shape[1] < 4:
        raise InputError(f"the audit needs passages of at least 4 tokens, not {tokens.shape[1]}")
    keep.plan(len(host.layers))
    tables = [keep(f"layer-{layer}", partial(_layer, host, tokens, layer, config)) for layer in host.layers]
    writes = concatenated(tables)
    records = heads_of(writes)
    return Measured(records, len(records), more={"writes": writes})


def _layer(host: Host, tokens: Tensor, layer: int, config: SpectrumConfig) -> pd.DataFrame:
    """One row a head and place, in order; every passage is read for the decays."""
    batch, length = tokens.shape
    generator = generator_for(config.seed, "spectrum", layer)
    passage = torch.randint(batch, (config.writes,), generator=generator)
    position = torch.randint(1, length - 2, (config.writes,), generator=generator)
    tables, kept = [], torch.zeros(host.layers[layer].heads, dtype=torch.float64)
    for begin, run in native_runs(host, tokens, layer):
        kept += run.streams[layer].log_decay.exp().mean(-1).double().sum((0, 1)).cpu()
        here = (passage >= begin) & (passage < begin + len(run.tokens))
        if here.any():
            table = _writes(run, passage[here] - begin, position[here], config, host.layers[layer].one_site)
            tables.append(table.assign(passage=table.passage + begin))
    whole = pd.concat(tables, ignore_index=True)
    decay = (kept / tokens.numel()).numpy()
    whole["decay"] = decay.mean() if host.layers[layer].one_site else decay[whole["head"]]
    return whole.sort_values(["head", "passage", "position"], kind="stable", ignore_index=True)


def _writes(run: NativeRun, passage: Tensor, position: Tensor, config: SpectrumConfig, one_site: bool) -> pd.DataFrame:
    """The same for the places `[R]` in one run."""
    stream, count = run.streams[run.layer], len(passage)
    heads = stream.key.shape[2]
    update = delta_values(stream)[0] if stream.rank_one else stream.value
    key, value = stream.key[passage, position], update[passage, position]  # [R, H, d]
    states = replay(stream, keep=(passage, position)).states
    weight, written = -torch.eye(heads).expand(count, -1, -1), key.norm(dim=-1) * value.norm(dim=-1)
    if one_site:
        states = states.permute(0, 2, 1, 3).flatten(2).unsqueeze(1)  # [R, 1, K, H V]
        weight, written = -torch.ones(count, 1, heads), written.norm(dim=1, keepdim=True)
    singular = torch.linalg.svdvals(states)
    size = singular.square().sum(-1).sqrt()
    sites = singular.shape[1]
    columns = {
        "layer": torch.full((sites, count), run.layer), "head": torch.arange(sites)[:, None].expand(-1, count),
        "passage": passage.expand(sites, -1), "position": position.expand(sites, -1),
        "token": run.tokens[passage, position].expand(sites, -1), "state_norm": size.T,
        "write_share": (written / size.clamp_min(1e-30)).T,
        "stable_rank": (singular.square().sum(-1) / singular[..., 0].square().clamp_min(1e-30)).T,
    }  # fmt: skip
    edits = Edits(list(range(heads)), passage, position, key, value, weight)
    for timing in config.timings:
        kl = torch.empty(count, sites + 1, dtype=torch.float64)
        for scored in patched_logits(run, edits, timing):
            kl[scored.which] = kl_divergence(scored.native.unsqueeze(1), scored.edited)[:, :, 0].cpu()
        columns |= {f"delete_kl_{timing}": kl[:, 1:].T, f"floor_{timing}": kl[:, 0].expand(sites, -1)}
    table = pd.DataFrame({name: x.flatten().cpu().numpy() for name, x in columns.items()})
    table["singular_values"] = list(singular.transpose(0, 1).flatten(0, 1).cpu().numpy())
    return table.assign(native_write="delta" if stream.rank_one else "value")
