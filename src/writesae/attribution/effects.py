"""Which past writes made the model say this? Every atom at every position, from one backward pass (MATH.md section 6).

An effect is what a piece of memory contributes to the target to first order: its size times the gradient of the target
with respect to the state it was added to. Positive means that without it the target would have been lower.

    native write   k_t^T G_t (b v)_t      (or the delta write u_t)
    atom           a_i(t) v_i^T G_t w_i   (and the price v_i^T G_t w_i of one unit, fired or not)
    head           sum_t g_t . o_t        which is the sum of its native writes in their value form
    layer          the sum of its heads
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal, get_args

import pandas as pd
import torch
from torch import Tensor

from writesae.causal.gradients import Gradients, output_gradients
from writesae.causal.identity import measured_on
from writesae.causal.targets import (
    Logit,
    LogitDifference,
    LogProbability,
    Target,
    TextLoss,
    check_target,
    describe_target,
    token_ids,
)
from writesae.causal.writes import stream_writes
from writesae.config import Json
from writesae.edits.dictionaries import Allow, Dictionaries, check_choice, check_model, place_all
from writesae.edits.generation import Prompts, encode_text
from writesae.errors import InputError
from writesae.hosts import Host
from writesae.recurrence import Stream, adjoint_products, delta_values
from writesae.sae import SAE
from writesae.show.document import Plots
from writesae.show.sheet import Listing, Sheet, Span, shows_itself
from writesae.show.words import visible
from writesae.types import NativeWrite, Site, Timing

Quantity = Literal["logit", "logprob", "loss"]
AROUND = 4
"""Tokens of context shown before a write's own."""


@dataclass(frozen=True)
class AtomEffects:
    """One dictionary's atoms at one site."""

    v: Tensor
    """Key sides, `[N, K]`."""
    w: Tensor
    """Value sides, `[N, V]`."""
    price: Tensor
    """`v_i^T G_t w_i`, `[T, N]`: the target's change a unit of the atom added after token t."""
    coefficient: Tensor
    """`a_i(t)` as the dictionary reads it, `[T, N]`; zero where it does not fire."""

    @property
    def effect(self) -> Tensor:
        """What each atom contributes at its own coefficient."""
        return self.price * self.coefficient


@dataclass(frozen=True)
class Contribution:
    """One entry of a ranking."""

    site: Site
    position: int
    text: str
    """The token's text, or its id where the model has no tokenizer."""
    effect: float
    feature: int | None = None
    coefficient: float | None = None


@shows_itself
@dataclass(frozen=True)
class Ranking:
    """Contributions, the largest first."""

    title: str
    entries: tuple[Contribution, ...]
    texts: tuple[str, ...] = field(repr=False)
    """Every token's text."""

    def __iter__(self) -> Iterator[Contribution]:
        return iter(self.entries)

    def __getitem__(self, index: int) -> Contribution:
        return self.entries[index]

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def records(self) -> pd.DataFrame:
        """One row a contribution."""
        return pd.DataFrame([{**asdict(c), "site": str(c.site)} for c in self.entries])

    def listing(self) -> Listing:
        """The entries with their text."""
        atoms = any(entry.feature is not None for entry in self.entries)
        rows = []
        for c in self.entries:
            before = visible("".join(self.texts[max(0, c.position - AROUND) : c.position]))
            text = (Span(before, "soft"), Span(visible(c.text), "strong"))
            atom = (str(c.feature), f"{c.coefficient:.4g}") if atoms else ()
            rows.append((str(c.site), *atom, str(c.position), text, f"{c.effect:+.4f}"))
        head = ("site", *(("atom", "coefficient") if atoms else ()), "position", "text", "effect")
        return Listing(head, rows, self.title)

    def sheet(self) -> Sheet:
        """A table."""
        return Sheet((self.listing(),))


@shows_itself
@dataclass(frozen=True)
class Attribution:
    """The first-order effects of one text's memory on one target."""

    host: Host = field(repr=False)
    tokens: Tensor
    """The text, `[T]`."""
    target: Target
    score: float
    """The target's value in the native run."""
    timing: Timing
    native_write: NativeWrite
    writes: Mapping[int, Tensor] = field(repr=False)
    """Layer -> effect of every native write, `[T, H]`."""
    heads: Mapping[int, Tensor] = field(repr=False)
    """Layer -> effect of every head, `[H]`."""
    atoms: Mapping[Site, AtomEffects] = field(repr=False)
    dictionaries: Mapping[Site, SAE] = field(default_factory=dict, repr=False)
    overruled: tuple[str, ...] = ()
    """What does not fit between the model and the dictionaries, and was allowed."""

    @property
    def measured_on(self) -> dict[str, Json]:
        """The model's name, revision, dtype and device, the dictionaries, and the versions of what ran them."""
        return measured_on(self.host, self.dictionaries)

    @property
    def layers(self) -> dict[int, float]:
        """Layer -> effect of all its heads."""
        return {layer: float(effects.sum()) for layer, effects in self.heads.items()}

    @property
    def texts(self) -> tuple[str, ...]:
        """Each token's text."""
        known = self.host._tokenizer is not None
        return tuple(self.host.text([i]) if known else f"#{i}" for i in self.tokens.tolist())

    @property
    def title(self) -> str:
        """What is explained."""
        return f"{describe_target(self.host, self.target)} in {self.host.name}"

    def top_writes(self, count: int = 10) -> Ranking:
        """The native writes with the largest effects, by size."""
        found = [
            (Site(layer, head), position, effect, None, None)
            for layer, effects in self.writes.items()
            for (position, head), effect in _largest(effects, count)
        ]
        return self._ranking(f"native writes ({self.native_write})", found, count)

    def top_atoms(self, count: int = 10) -> Ranking:
        """The atoms with the largest effects at their own coefficients, by size."""
        found = [
            (site, position, effect, feature, float(atoms.coefficient[position, feature]))
            for site, atoms in self.atoms.items()
            for (position, feature), effect in _largest(atoms.effect, count)
        ]
        return self._ranking("atoms", found, count)

    def _ranking(
        self, title: str, found: Sequence[tuple[Site, int, float, int | None, float | None]], count: int
    ) -> Ranking:
        texts = self.texts
        best = sorted(found, key=lambda entry: -abs(entry[2]))[:count]
        entries = tuple(Contribution(site, p, texts[p], effect, *atom) for site, p, effect, *atom in best)  # type: ignore[arg-type]
        return Ranking(title, entries, texts)

    def sheet(self, count: int = 10) -> Sheet:
        """The target's value, the layers and heads, and the largest writes and atoms with their text."""
        heads = sorted(
            ((f"L{i}.H{h}", x) for i, e in self.heads.items() for h, x in enumerate(e.tolist())),
            key=lambda p: -abs(p[1]),
        )
        return Sheet(
            (
                f"{self.title}: {self.score:.4f}; effects are first order, {self.timing}",
                "layers  " + ", ".join(f"{layer}: {effect:+.3f}" for layer, effect in self.layers.items()),
                "heads   " + ", ".join(f"{name} {effect:+.3f}" for name, effect in heads[:count]),
                self.top_writes(count).listing(),
                *([self.top_atoms(count).listing()] if self.atoms else []),
                *((Span(f"allowed mismatch: {what}", "strong"),) for what in self.overruled),
            )
        )

    def plot(self, count: int = 30) -> Plots:
        """Heat maps of tokens x atoms and tokens x heads, by name."""
        from writesae.attribution.picture import shown

        return Plots(self.title, shown(self, count))

    def to_json(self, count: int = 10) -> dict[str, Json]:
        """Everything that identifies the result, the rankings, and every native write's effect."""

        def entries(ranking: Ranking) -> list[Json]:
            return [{**asdict(c), "site": str(c.site)} for c in ranking]

        return {
            "measured_on": self.measured_on,
            "overruled": list(self.overruled),
            "tokens": self.tokens.tolist(),
            "texts": list(self.texts),
            "target": {"kind": type(self.target).__name__, **asdict(self.target)},
            "score": self.score,
            "timing": self.timing,
            "native_write": self.native_write,
            "layers": {str(layer): effect for layer, effect in self.layers.items()},
            "heads": {str(layer): effects.tolist() for layer, effects in self.heads.items()},
            "writes": {str(layer): effects.tolist() for layer, effects in self.writes.items()},
            "top_writes": entries(self.top_writes(count)),
            "top_atoms": entries(self.top_atoms(count)),
        }


def _largest(effects: Tensor, count: int) -> Iterator[tuple[tuple[int, int], float]]:
    """The largest of `[T, n]` by size: where, and how large."""
    for flat in effects.abs().flatten().topk(min(count, effects.numel())).indices.tolist():
        row, column = divmod(flat, effects.shape[1])
        yield (row, column), float(effects[row, column])


def attribute(
    model: Host,
    sae: Dictionaries | None,
    text: Prompts,
    target: str | int | Target | None = None,
    *,
    against: str | int | None = None,
    quantity: Quantity = "logit",
    position: int = -1,
    site: Site | str | None = None,
    layers: Sequence[int] | None = None,
    timing: Timing = "at_token",
    native_write: NativeWrite = "value",
    allow: Allow = (),
) -> Attribution:
    """Price the writes of a text (words or token ids `[T]`) for a target, in one forward and one backward pass.

    `sae` is a dictionary, one for each of several heads, or None; `site` its head where it does not say it. `target` is
    a token, as text that is one token or as its id (the model's own next token if none is given), or a `Target`; of a
    token `quantity` is taken at `position`, and its logit may be read `against` another's. `layers` are those whose
    native writes are priced (all by default), and the dictionaries' layers are among them. Under `at_token` a write is
    read by its own token too; under `after_token` only later reads count. Raises InputError for a target outside the
    text, a dictionary that does not fit its head (other weights or another head unless `allow="mismatch"`), or a delta
    write of RWKV-7.
    """
    placed = place_all(check_model(model), sae, site, allow=allow)
    check_choice("timing", timing, Timing)
    check_choice("native_write", native_write, NativeWrite)
    tokens = torch.tensor(encode_text(model, text))
    wanted = read_target(model, tokens, target, against, quantity, position)
    priced = sorted(set(model.layers if layers is None else layers) | {site.layer for site in placed})
    found = output_gradients(model, tokens[None], wanted, priced)
    writes = {i: write_effects(found.streams[i], found.grads[i], timing, native_write)[0] for i in priced}
    heads = {i: (found.grads[i] * found.outputs[i].float()).sum((0, 1, 3)) for i in priced}
    atoms = {site: _atom_effects(found, site, one.sae, timing) for site, one in placed.items()}
    saes = {site: one.sae for site, one in placed.items()}
    overruled = tuple(dict.fromkeys(what for one in placed.values() for what in one.overruled))
    return Attribution(
        model, tokens, wanted, float(found.score), timing, native_write, writes, heads, atoms, saes, overruled
    )


def read_target(
    model: Host,
    tokens: Tensor,
    target: str | int | Target | None,
    against: str | int | None = None,
    quantity: Quantity = "logit",
    position: int = -1,
) -> Target:
    """What is explained, from words; see `attribute`. Raises InputError."""
    check_choice("quantity", quantity, Quantity)
    if isinstance(target, Target):
        if against is not None or quantity != "logit" or position != -1:
            raise InputError("a whole target was given: leave out against, quantity and position")
        return target
    if quantity == "loss":
        if target is not None or against is not None:
            raise InputError("the loss of the text has no target token: leave out target and against")
        return TextLoss()
    check_target(Logit((0,), position), len(tokens), model.vocabulary)
    if target is None:
        target = int(model.logits(tokens[None], keep=torch.tensor([position]))[0, 0].argmax())
    (wanted,) = token_ids(model, _token(target))
    if against is not None:
        if quantity != "logit":
            raise InputError(f"a difference of logits was asked for, and {quantity} besides: give one")
        (other,) = token_ids(model, _token(against))
        return LogitDifference(wanted, other, position)
    return LogProbability(wanted, position) if quantity == "logprob" else Logit((wanted,), position)


def _token(given: object) -> str | int:
    if not isinstance(given, str | int):
        kinds = ", ".join(kind.__name__ for kind in get_args(Target))
        raise InputError(f"a {type(given).__name__} was given as a target: give a token, as text or id, or a {kinds}")
    return given


@torch.no_grad()
def write_effects(stream: Stream, grad: Tensor, timing: Timing, native_write: NativeWrite) -> Tensor:
    """`k_t^T G_t x_t` for every token and head, `[B, T, H]`; `x` is the native write's value side."""
    value = stream.value
    if native_write == "delta":
        if not stream.rank_one:
            raise InputError('a head of RWKV-7 adds two rank-1 pieces a token, so it has no delta write: use "value"')
        value = delta_values(stream)[0]
    onward = torch.zeros_like(torch.einsum("bhk,bhv->bhkv", stream.key[:, 0], value[:, 0]))
    decay, effects = stream.log_decay.exp(), []
    for t in reversed(range(stream.key.shape[1])):
        whole = onward + stream.query[:, t, :, :, None] * grad[:, t, :, None, :]
        priced = whole if timing == "at_token" else onward
        effects.append(((stream.key[:, t].unsqueeze(-2) @ priced).squeeze(-2) * value[:, t]).sum(-1))
        onward = decay[:, t, :, :, None] * whole
        if stream.erase is not None:
            along, reads = stream.erase[0][:, t], stream.erase[1][:, t]
            onward = onward - reads[..., None] * (along.unsqueeze(-2) @ whole)
    return torch.stack(effects[::-1], 1)


@torch.no_grad()
def _atom_effects(found: Gradients, site: Site, sae: SAE, timing: Timing) -> AtomEffects:
    stream = found.streams[site.layer].heads(site.head)
    v, w = sae.atoms()
    grad = found.grads[site.layer][:, :, [site.head]]
    v, w = v.to(grad.device), w.to(grad.device)
    price = adjoint_products(stream, grad, v, w, timing == "at_token")[0]
    return AtomEffects(v, w, price, stream_writes(stream).encode(sae).dense(sae.config.features)[0])
