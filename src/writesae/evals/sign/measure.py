"""One trial a context, direction, timing and magnitude: how far the target's logit moves, and how far it was to move.

The logit is read at the context's last token, and the write is made there (`at_token`) or one token before
(`after_token`). Predictions, none of them fitted: `exact`, the first order `v^T G w`; `closed`, the paper's product of
decays, read and unembedding; `carried`, the same with what the head's own recurrence erases between.
"""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

from writesae.causal.budget import passages_at_once
from writesae.causal.closed_form import closed_form, toward
from writesae.causal.gradients import Gradients, output_gradients
from writesae.causal.patching import Edits
from writesae.causal.targets import RowLogit
from writesae.causal.writes import head_writes
from writesae.edits.directions import leading_pair, state_gradients, unit
from writesae.errors import InputError
from writesae.evals.common.draws import ranked_tokens, unit_rows
from writesae.evals.common.followed import token_changes
from writesae.evals.common.pieces import Keep, Measured
from writesae.evals.common.subject import Subject
from writesae.evals.sign import SignConfig
from writesae.hosts import Host
from writesae.hosts.fork import NativeRun, native_run
from writesae.recurrence import respond
from writesae.types import Site, Timing

SHORTEST = 3
"""Tokens of a context: rows begin after one, and the write is made before the last."""

PIECE = 48
"""Contexts of one piece: they are short."""


def measure(subject: Subject, config: SignConfig, keep: Keep) -> Measured:
    """A record is a trial. Raises InputError for several heads, contexts under 3 tokens, or ranks outside the
    vocabulary."""
    host, tokens = subject.host, subject.tokens
    if len(subject.sites) > 1:
        raise InputError(f"sign writes at one head: give one site, not {len(subject.sites)}")
    if tokens.shape[1] < SHORTEST:
        raise InputError(f"sign needs contexts of {SHORTEST} tokens or more, not {tokens.shape[1]}")
    if config.ranks[1] > host.vocabulary:
        raise InputError(f"ranks {config.ranks} are not within a vocabulary of {host.vocabulary}")
    at_once = passages_at_once(host, tokens.shape[1], subject.site.layer, graph=True, most=PIECE)

    def make(begin: int, end: int) -> pd.DataFrame:
        some = [range(a, min(a + at_once, end)) for a in range(begin, end, at_once)]
        return pd.concat([_trials(host, subject.site, tokens, passages, config) for passages in some])

    return Measured(keep.by_passages(len(tokens), make, PIECE), len(tokens))


def _trials(host: Host, site: Site, tokens: Tensor, passages: range, config: SignConfig) -> pd.DataFrame:
    contexts = tokens[passages.start : passages.stop]
    native = host.logits(contexts, keep=1)[:, -1]
    targets = ranked_tokens(native, config.ranks, config.seed, "target", passages=passages)
    found = output_gradients(host, contexts, RowLogit(tuple(targets.tolist())), [site.layer])
    run = native_run(host, contexts, site.layer)
    return pd.concat([_timed(run, site, passages, targets, found, timing, config) for timing in config.timings])


def _timed(
    run: NativeRun, site: Site, passages: range, targets: Tensor, found: Gradients, timing: Timing, config: SignConfig
) -> pd.DataFrame:
    rows, last = len(passages), run.tokens.shape[1] - 1
    position = last if timing == "at_token" else last - 1
    stream, writes = run.streams[site.layer].heads(site.head), head_writes(run, site.head)
    gradient = state_gradients(found, site, timing)[:, position]
    towards = toward(run.host, site, targets).to(gradient)
    sizes = [(d,) for d in gradient.shape[1:]]
    noise = [x.to(gradient) for x in unit_rows(config.seed, site, "random", passages=passages, sizes=sizes)]
    exact = leading_pair(gradient)
    made = {
        "closed": (unit(stream.query[:, last, 0]), unit(towards)),
        "exact": (exact.key, exact.value),
        "random": (noise[0], noise[1]),
    }
    key, value = (torch.stack([made[kind][side] for kind in config.directions], 1) for side in (0, 1))
    local = stream.map(lambda x: x[:, position:])
    carried = respond(local, key.unsqueeze(2), value.unsqueeze(2), timing == "at_token")[:, :, -1, 0]
    slopes = {
        "exact": torch.einsum("rmk,rkv,rmv->rm", key, gradient, value),
        "carried": torch.einsum("rmv,rv->rm", carried, towards),
        "closed": closed_form(local, last - position, key, value, towards),
    }
    size = writes.written.key[:, position].norm(dim=-1)
    norms = {form: size * writes.side(form)[:, position].norm(dim=-1) for form in config.native_writes}
    grid = [(m, form, x) for m in range(len(config.directions)) for form in norms for x in config.magnitudes]
    weight = torch.zeros(rows, len(grid), len(config.directions)).to(gradient)
    for c, (m, form, magnitude) in enumerate(grid):
        weight[:, c, m] = magnitude * norms[form]
    heads = [site.head] * len(config.directions)
    edits = Edits(heads, torch.arange(rows), torch.full((rows,), position), key, value, weight)
    change, floor = token_changes(run, edits, targets, timing, log_probability=False)
    tables = []
    for c, (m, form, magnitude) in enumerate(grid):
        said = {name: (magnitude * norms[form] * slope[:, m]).double().cpu() for name, slope in slopes.items()}
        table = pd.DataFrame({"passage": passages, "token": targets, "change": change[:, c], "floor": floor, **said})
        what = {"direction": config.directions[m], "timing": timing, "native_write": form, "magnitude": magnitude}
        tables.append(table.assign(**what))
    return pd.concat(tables)
