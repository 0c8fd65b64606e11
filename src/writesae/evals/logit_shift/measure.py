"""`closed`: the paper's product (appendix A) of decays, read, output projection and unembedding, no norm anywhere.
`direct`: the same with the erase terms, the gated norm's and the final norm's Jacobian: the direct path, complete.
`exact`: all first-order effects, through every read and every layer above (MATH.md section 6).

The write `eps * size * v w^T` (unit v, w; size the site's median native write) is added at a token, which reads it
itself (`at_token`) or not (`after_token`), and the logits are read there or some tokens later.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

import pandas as pd
import torch
from torch import Tensor

from writesae.causal.budget import passages_at_once
from writesae.causal.closed_form import closed_form, toward
from writesae.causal.gradients import Forward, direct_gradients, forward, logit_gradients
from writesae.causal.patching import Edits, first_step, patched_logits
from writesae.causal.precision import fits_widened, in_float64, widened
from writesae.errors import InputError
from writesae.evals.common.controls import normalize
from writesae.evals.common.drawn_firings import check_features
from writesae.evals.common.draws import generator_for
from writesae.evals.common.firings import most_raised, runs
from writesae.evals.common.forms import native_writes
from writesae.evals.common.pieces import Keep, Measured, concatenated, passage_groups
from writesae.evals.common.result import count
from writesae.evals.common.subject import Subject
from writesae.evals.logit_shift import LogitShiftConfig
from writesae.evals.logit_shift.summary import CELL, hidden, measurable
from writesae.hosts import Host
from writesae.hosts.fork import NativeRun, native_run
from writesae.recurrence import adjoint_products
from writesae.types import NativeWrite, Site, Timing


def measure(subject: Subject, config: LogitShiftConfig, keep: Keep) -> Measured:
    """An item is one (atom, timing, form of the native write, epsilon, horizon), a record one of its tokens.

    Raises InputError for passages that are too few or short, ranks beyond the vocabulary, or a dictionary or atoms that
    never fire.
    """
    host, length, far = subject.host, subject.tokens.shape[1], max(config.horizons)
    if len(subject.tokens) < config.places or length < far + 3:
        raise InputError(
            f"{config.places} places {far} tokens before their reading need as many passages of at least {far + 3} "
            f"tokens, not {len(subject.tokens)} of {length}"
        )
    if max(config.ranks) >= host.vocabulary:
        raise InputError(f"token ranks {config.ranks} must lie in 0 to {host.vocabulary - 1} for {host.name}")
    text = subject.tokens[: config.places]
    atoms, silent = _atoms(subject, text, config)
    generator = generator_for(config.seed, str(subject.site), "logit_shift")
    position = torch.randint(1, length - far - 1, (len(text),), generator=generator)

    def measured(wide: bool) -> pd.DataFrame:
        """All records at one precision."""
        copies = [] if wide else [host]

        def piece(begin: int, end: int) -> pd.DataFrame:
            with in_float64() if wide else nullcontext():
                copies.extend([] if copies else [widened(host)])
                return _piece(copies[0], subject.site, text[begin:end], position[begin:end], atoms, config, begin)

        groups, precision = list(passage_groups(len(text))), "float64" if wide else "float32"
        keep.plan(len(groups))
        tables = [keep(f"{precision}-{begin}", partial(piece, begin, end)) for begin, end in groups]
        return concatenated(tables).assign(precision=precision)

    records = measured(config.precision == "float64")
    if config.precision == "auto" and hidden(records) and fits_widened(host):
        records = measured(True)
    quiet = ~measurable(records).groupby(CELL).first()
    refused = count("no effect above the rounding of the logits" if q else "" for q in quiet)
    if silent:
        refused["never fires"] = silent * len(quiet) // len(atoms.feature)
    return Measured(records, len(quiet) + refused.get("never fires", 0), refused)


@dataclass(frozen=True)
class Atoms:
    """What is added to the state."""

    feature: Tensor
    """`[N]`."""
    v: Tensor
    """Key sides, `[N, K]`."""
    w: Tensor
    """Value sides, `[N, V]`."""
    sizes: Mapping[NativeWrite, float]
    """Median norm of the site's native writes, by form."""


def _atoms(subject: Subject, tokens: Tensor, config: LogitShiftConfig) -> tuple[Atoms, int]:
    """The atoms asked for, else those with the largest summed coefficients; and how many of those never fire."""
    sae, site = subject.sae, subject.site
    forms = native_writes(subject.host, subject.sites, tokens, config.native_writes)
    asked, total = check_features(sae, config.features), torch.zeros(sae.config.features)
    norms: dict[NativeWrite, list[Tensor]] = {form: [] for form in (forms if config.native_writes else forms[:1])}
    for _, _, writes in runs(subject.host, site, tokens):
        raised = config.reading == "increment" and sae.target == "state"
        codes = most_raised(sae, writes, forms[0]) if raised else writes.encode(sae)
        total.index_add_(0, codes.index.flatten().cpu(), codes.value.flatten().cpu())
        for form, own in norms.items():
            own.append((writes.written.key.norm(dim=-1) * writes.side(form).norm(dim=-1)).flatten())
    wanted = torch.tensor(asked) if asked else total.topk(min(config.atoms, len(total))).indices
    alive = wanted[total[wanted] > 0]
    if len(alive) == 0:
        what = f"of the {len(asked)} features" if asked else "feature of the dictionary"
        raise InputError(f"no {what} fires at {site} in {len(tokens)} passages")
    found = sae.atoms()
    sizes = {form: float(torch.cat(own).median()) for form, own in norms.items()}
    return Atoms(alive, found.v[alive], found.w[alive], sizes), len(wanted) - len(alive)


def _piece(
    host: Host, site: Site, tokens: Tensor, position: Tensor, atoms: Atoms, config: LogitShiftConfig, offset: int
) -> pd.DataFrame:
    far, tables = max(config.horizons), []
    at_once = passages_at_once(host, tokens.shape[1], site.layer, read=far + 1, graph=True)
    for begin in range(0, len(tokens), at_once):
        part = slice(begin, begin + at_once)
        run = native_run(host, tokens[part], site.layer)
        read = position[part, None] + torch.arange(far + 1)  # all that either timing scores
        graph = forward(host, tokens[part], [site.layer], read)
        v, w = (normalize(x.to(graph.streams[site.layer].key)) for x in (atoms.v, atoms.w))
        unit = replace(atoms, v=v, w=w)
        for timing in config.timings:
            table = _cells(site, run, graph, position[part], unit, config, timing)
            tables.append(table.assign(passage=table.passage + begin + offset, timing=timing))
    return pd.concat(tables, ignore_index=True)


def _cells(
    site: Site, run: NativeRun, graph: Forward, position: Tensor, atoms: Atoms, config: LogitShiftConfig, timing: Timing
) -> pd.DataFrame:
    """The records of some places, one a passage of the run."""
    rows, steps = torch.arange(len(position)), torch.tensor(config.horizons) - 1 + first_step(timing)
    full = graph.logits.detach()[:, steps]  # [R, horizons, vocabulary]
    token = full.argsort(-1, descending=True)[:, :, list(config.ranks)]  # [R, horizons, ranks]
    scales = [(form, e, e * size) for (form, size), e in product(atoms.sizes.items(), config.epsilons)]
    measured, noise = _measured(run, site.head, position, atoms, token, [s for *_, s in scales], config, timing, full)

    local = position[:, None] + torch.arange(int(steps.max()) + 1)
    stream = graph.streams[site.layer].heads(site.head).map(lambda x: x[rows[:, None], local])
    v, w, n = atoms.v, atoms.w, len(atoms.feature)
    tables = []
    for (i, step), (j, rank) in product(enumerate(steps.tolist()), enumerate(config.ranks)):
        here = token[:, i, j]
        whole = logit_gradients(graph, site.layer, torch.full_like(rows, step), here)
        whole = whole[rows[:, None], local, site.head].unsqueeze(2)
        direct = torch.zeros_like(whole)
        direct[:, step, 0] = direct_gradients(graph, site.layer, position + step, here)[:, site.head]
        at_token = timing == "at_token"
        slopes = {
            "closed": closed_form(stream, step, v, w, toward(run.host, site, here)),
            "direct": adjoint_products(stream, direct, v, w, at_token=at_token)[:, 0],
            "exact": adjoint_products(stream, whole, v, w, at_token=at_token)[:, 0],
        }
        for s, (form, epsilon, scale) in enumerate(scales):
            columns = {
                "feature": atoms.feature.repeat(len(rows)),
                "passage": rows.repeat_interleave(n),
                "position": position.repeat_interleave(n),
                "token": here.repeat_interleave(n),
                "measured": measured[:, s, :, i, j].flatten(),
                "noise": noise[:, i, j].repeat_interleave(n),
                **{name: (slope * scale).flatten() for name, slope in slopes.items()},
            }
            table = pd.DataFrame({name: x.cpu().numpy() for name, x in columns.items()})
            about = {"native_write": form, "epsilon": epsilon, "horizon": config.horizons[i], "rank": rank}
            tables.append(table.assign(**about))
    return pd.concat(tables, ignore_index=True)


def _measured(
    run: NativeRun, head: int, position: Tensor, atoms: Atoms, token: Tensor, scales: list[float],
    config: LogitShiftConfig, timing: Timing, full: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Measured changes `[R, scales, N, horizons, ranks]`, and how far the native logits are from those of the whole
    forward pass (`full`), `[R, horizons, ranks]`."""
    places, n = len(position), len(atoms.feature)
    steps, eye = torch.tensor(config.horizons) - 1, torch.eye(n)
    key, value = (x.expand(places, -1, -1) for x in (atoms.v, atoms.w))
    found = torch.empty(places, len(scales), n, *token.shape[1:], dtype=torch.float64)
    noise = torch.empty(token.shape, dtype=torch.float64)
    for s, scale in enumerate(scales):
        weight = (eye * scale).expand(places, n, n)
        edits = Edits([head] * n, torch.arange(places), position, key, value, weight)
        for scored in patched_logits(run, edits, timing, max(config.horizons)):
            here = token[scored.which]
            native = scored.native[:, steps].gather(-1, here)
            patched = scored.patched[:, :, steps].gather(-1, here.unsqueeze(1).expand(-1, n, -1, -1))
            found[scored.which, s] = (patched.double() - native.double().unsqueeze(1)).cpu()
            again = full[scored.which].gather(-1, here)
            noise[scored.which] = (again.double() - native.double()).cpu()
    return found, noise
