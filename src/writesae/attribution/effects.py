"""Which past writes made the model say this? Every atom at every position, from one backward pass (MATH.md section 6).

An effect is what a piece of memory contributes to the target to first order: its size times the gradient of the target
with respect to the state it was added to. Positive means that without it the target would have been lower.

    native write   k_t^T G_t (b v)_t      (or the delta write u_t)
    atom           a_i(t) v_i^T G_t w_i   (and the price v_i^T G_t w_i of one unit, fired or not; by increment a_i is
                                           what the token's write adds to it)
    head           sum_t g_t . o_t        which is the sum of its native writes in their value form
    layer          the sum of its heads
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from writesae.attribution.ranking import Contribution, Ranking
from writesae.attribution.target import Quantity, read_target
from writesae.calls import worded
from writesae.causal.gradients import Gradients, output_gradients
from writesae.causal.identity import check_reading, measured_line, measured_on
from writesae.causal.targets import Target, describe_target
from writesae.causal.writes import no_delta_write, stream_writes
from writesae.config import Json
from writesae.edits.dictionaries import Allow, Dictionaries, check_choice, check_model, place_all
from writesae.edits.generation import Prompts, encode_text
from writesae.errors import InputError
from writesae.hosts import Host
from writesae.recurrence import Stream, adjoint_products, delta_values
from writesae.sae import SAE
from writesae.show.document import Plots
from writesae.show.sheet import Sheet, Span, shows_itself
from writesae.types import NativeWrite, Reading, Site, Timing


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
    """`a_i(t)` as the dictionary reads it, `[T, N]`; zero where it does not fire. By increment, by how much the token's
    write raises it, of as many as fire in the state."""

    @property
    def effect(self) -> Tensor:
        """What each atom contributes at its own coefficient."""
        return self.price * self.coefficient


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
    reading: Reading = "state"
    """How dictionaries of states are read; others have one reading."""

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
        return self._ranking("atoms" + ", read by increment" * (self.reading == "increment"), found, count)

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
                (Span(measured_line(self.measured_on), "soft"),),
                *((Span(f"allowed mismatch: {what}", "strong"),) for what in self.overruled),
            )
        )

    def plot(self, count: int = 30) -> Plots:
        """Heat maps of tokens x atoms and tokens x heads, by name."""
        from writesae.attribution.picture import shown

        return Plots(self.title, shown(self, count))

    def to_json(self, count: int = 10) -> dict[str, Json]:
        """Everything that identifies the result, the rankings, and every native write's effect."""
        return {
            "measured_on": self.measured_on,
            "overruled": list(self.overruled),
            "text": self.host.text(self.tokens.tolist()) if self.host.has_tokenizer else None,
            "tokens": self.tokens.tolist(),
            "texts": list(self.texts),
            "target": {"kind": type(self.target).__name__, **asdict(self.target)},
            "score": self.score,
            "timing": self.timing,
            "native_write": self.native_write,
            "reading": self.reading,
            "layers": {str(layer): effect for layer, effect in self.layers.items()},
            "heads": {str(layer): effects.tolist() for layer, effects in self.heads.items()},
            "writes": {str(layer): effects.tolist() for layer, effects in self.writes.items()},
            "top_writes": [*self.top_writes(count).to_json()],
            "top_atoms": [*self.top_atoms(count).to_json()],
        }


def _largest(effects: Tensor, count: int) -> Iterator[tuple[tuple[int, int], float]]:
    """The largest of `[T, n]` by size: where, and how large. Raises InputError for a count below 1."""
    if count < 1:
        raise InputError(f"the top {count} were asked for: ask for at least 1")
    for flat in effects.abs().flatten().topk(min(count, effects.numel())).indices.tolist():
        row, column = divmod(flat, effects.shape[1])
        yield (row, column), float(effects[row, column])


@worded
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
    reading: Reading = "state",
    allow: Allow = (),
) -> Attribution:
    """Price the writes of a text (words or token ids `[T]`) for a target, in one forward and one backward pass.

    `sae` is a dictionary, one for each of several heads, or None; `site` its head where it does not say it. `target` is
    a token, as text that is one token or as its id (the model's own next token if none is given), or a `Target`; of a
    token `quantity` is taken at `position`, and its logit may be read `against` another's. `layers` are those whose
    native writes are priced (all by default), and the dictionaries' layers are among them. Under `at_token` a write is
    read by its own token too; under `after_token` only later reads count. Dictionaries of states are read by `state`,
    or by `increment`: what the token's native write adds to a feature. Raises InputError for a target outside the
    text, a dictionary that does not fit its head (other weights or another head unless `allow="mismatch"`), or a delta
    write of RWKV-7 or Gated DeltaNet 2.
    """
    check_model(model).need_writes()
    placed = place_all(model, sae, site, allow=allow)
    check_choice("timing", timing, Timing)
    check_choice("native_write", native_write, NativeWrite)
    check_choice("reading", reading, Reading)
    check_reading(reading, [one.sae for one in placed.values()])
    tokens = torch.tensor(encode_text(model, text))
    wanted = read_target(model, tokens, target, against, quantity, position)
    priced = sorted(set(model.layers if layers is None else layers) | {site.layer for site in placed})
    found = output_gradients(model, tokens[None], wanted, priced)
    writes = {i: write_effects(found.streams[i], found.grads[i], timing, native_write)[0] for i in priced}
    heads = {i: (found.grads[i] * found.outputs[i].float()).sum((0, 1, 3)) for i in priced}
    atoms = {site: _atom_effects(found, site, one.sae, timing, reading, native_write) for site, one in placed.items()}
    saes = {site: one.sae for site, one in placed.items()}
    overruled = tuple(dict.fromkeys(what for one in placed.values() for what in one.overruled))
    return Attribution(
        model, tokens, wanted, float(found.score), timing, native_write, writes, heads, atoms, saes, overruled, reading
    )


@torch.no_grad()
def write_effects(stream: Stream, grad: Tensor, timing: Timing, native_write: NativeWrite) -> Tensor:
    """`k_t^T G_t x_t` for every token and head, `[B, T, H]`; `x` is the native write's value side."""
    value = stream.value
    if native_write == "delta":
        if not stream.rank_one:
            raise no_delta_write()
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
def _atom_effects(
    found: Gradients, site: Site, sae: SAE, timing: Timing, reading: Reading, native_write: NativeWrite
) -> AtomEffects:
    stream = found.streams[site.layer].heads(site.head)
    v, w = sae.atoms()
    grad = found.grads[site.layer][:, :, [site.head]]
    v, w = v.to(grad.device), w.to(grad.device)
    price = adjoint_products(stream, grad, v, w, timing == "at_token")[0]
    return AtomEffects(
        v, w, price, stream_writes(stream).read(sae, reading, native_write).dense(sae.config.features)[0]
    )
