"""Which past writes made the model say this? Every atom at every position, from one backward pass (MATH.md section 6).

An effect is what a piece of memory contributes to the target to first order: its size times the gradient of the target
with respect to the state it was added to. Positive means that without it the target would have been lower.

    native write   k_t^T G_t (b v)_t      (or the delta write u_t)
    atom           a_i(t) v_i^T G_t w_i   (and the price v_i^T G_t w_i of one unit, fired or not)
    head           sum_t g_t . o_t        which is the sum of its native writes in their value form
    layer          the sum of its heads
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from writesae.causal.gradients import Gradients, output_gradients
from writesae.causal.targets import Target
from writesae.errors import InputError
from writesae.hosts import Host
from writesae.recurrence import Stream, adjoint_products, delta_values
from writesae.recurrence.written import Written
from writesae.sae import SAE
from writesae.types import NativeWrite, Site, Timing


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
    """The token's text, or its id where the host has no tokenizer."""
    effect: float
    feature: int | None = None
    coefficient: float | None = None


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
    form: NativeWrite
    writes: Mapping[int, Tensor] = field(repr=False)
    """Layer -> effect of every native write, `[T, H]`."""
    heads: Mapping[int, Tensor] = field(repr=False)
    """Layer -> effect of every head, `[H]`."""
    atoms: Mapping[Site, AtomEffects] = field(repr=False)

    @property
    def layers(self) -> dict[int, float]:
        """Layer -> effect of all its heads."""
        return {layer: float(effects.sum()) for layer, effects in self.heads.items()}

    @property
    def texts(self) -> list[str]:
        """Each token's text."""
        known = self.host._tokenizer is not None
        return [self.host.text([i]) if known else f"#{i}" for i in self.tokens.tolist()]

    def top_writes(self, count: int = 10) -> list[Contribution]:
        """The native writes with the largest effects, by size."""
        texts, found = self.texts, []
        for layer, effects in self.writes.items():
            best = effects.abs().flatten().topk(min(count, effects.numel())).indices.tolist()
            for flat in best:
                position, head = divmod(flat, effects.shape[1])
                value = float(effects[position, head])
                found.append(Contribution(Site(layer, head), position, texts[position], value))
        return sorted(found, key=lambda c: -abs(c.effect))[:count]

    def top_atoms(self, count: int = 10) -> list[Contribution]:
        """The atoms with the largest effects at their own coefficients, by size."""
        texts, found = self.texts, []
        for site, atoms in self.atoms.items():
            effect = atoms.effect
            for flat in effect.abs().flatten().topk(min(count, effect.numel())).indices.tolist():
                position, feature = divmod(flat, effect.shape[1])
                value, coefficient = float(effect[position, feature]), float(atoms.coefficient[position, feature])
                found.append(Contribution(site, position, texts[position], value, feature, coefficient))
        return sorted(found, key=lambda c: -abs(c.effect))[:count]


def attribute(
    host: Host,
    tokens: Tensor,
    target: Target,
    dictionaries: Mapping[Site, SAE] | None = None,
    layers: Sequence[int] | None = None,
    timing: Timing = "at_token",
    form: NativeWrite = "value",
) -> Attribution:
    """Price the writes of a text `[T]` for a target, in one forward and one backward pass.

    `layers` are those whose native writes are priced (all by default), and the dictionaries' layers are among them.
    Under `at_token` a write is read by its own token too; under `after_token` only later reads count. Raises
    InputError for a target outside the text, a dictionary that does not fit its site, or a delta form of RWKV-7.
    """
    dictionaries = {} if dictionaries is None else dictionaries
    for site, sae in dictionaries.items():
        layer = host.check_site(site)
        if (sae.config.d_k, sae.config.d_v) != (layer.d_k, layer.d_v):
            raise InputError(
                f"the dictionary given for {site} is for {sae.config.d_k} x {sae.config.d_v} matrices, but {site} of "
                f"{host.name} writes {layer.d_k} x {layer.d_v}: it belongs to another host or layer"
            )
    if tokens.ndim != 1 or len(tokens) == 0:
        raise InputError(f"attribution was asked of tokens of shape {tuple(tokens.shape)}: give one text, [T], T >= 1")
    wanted = sorted(set(host.layers if layers is None else layers) | {site.layer for site in dictionaries})
    found = output_gradients(host, tokens[None], target, wanted)
    writes = {i: write_effects(found.streams[i], found.grads[i], timing, form)[0] for i in wanted}
    heads = {i: (found.grads[i] * found.outputs[i].float()).sum((0, 1, 3)) for i in wanted}
    atoms = {site: _atom_effects(found, site, sae, timing) for site, sae in dictionaries.items()}
    return Attribution(host, tokens, target, float(found.score), timing, form, writes, heads, atoms)


@torch.no_grad()
def write_effects(stream: Stream, grad: Tensor, timing: Timing, form: NativeWrite) -> Tensor:
    """`k_t^T G_t x_t` for every token and head, `[B, T, H]`; `x` is the native write's value side in this form."""
    value = stream.value
    if form == "delta":
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
    return AtomEffects(v, w, price, read_codes(stream, sae))


@torch.no_grad()
def read_codes(stream: Stream, sae: SAE) -> Tensor:
    """Coefficients of a dictionary along one head's stream of one text, `[T, N]`."""
    if sae.config.target == "write-value" or not stream.rank_one:
        if sae.config.target != "write-value":
            raise InputError("a head of RWKV-7 writes no k u^T: use a dictionary of its native writes (write-value)")
        plain = Written(stream.key[:, :, 0], stream.value[:, :, 0], stream.log_decay[:, :, 0])
        return sae.encode_written(plain).dense(sae.config.features)[0]
    update = delta_values(stream)[0][:, :, 0]
    gate = None if stream.erase_gate is None else stream.erase_gate[:, :, 0]
    written = Written(stream.key[:, :, 0], update, stream.log_decay[:, :, 0], gate)
    return sae.encode_written(written).dense(sae.config.features)[0]
