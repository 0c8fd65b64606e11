"""The dictionary: one module for every encoder x sparsity x decoder.

What it computes on a matrix `X` (`[K, V]`) is written here in the obvious dense form, which is the reference for
everything faster. `encode_written` is the factored path of MATH.md sections 3-4: the same codes from a stream.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path

import torch
from torch import Tensor, nn

from writesae.errors import InputError
from writesae.recurrence.scan import PROJECTED
from writesae.recurrence.written import Written
from writesae.sae.codes import Atoms, Codes
from writesae.sae.config import BatchTopK, Bilinear, Factored, Flat, Gated, JumpReLU, SAEConfig, SoftGated, TopK
from writesae.sae.preact import preactivation_chunks
from writesae.sae.record import Record
from writesae.sae.show import html, text
from writesae.sae.sparsity import jump, keep_batch_top, pack, top_codes
from writesae.types import Float, Int, Site, Target


def atom_norms(v: Float[Tensor, "N r K"], w: Float[Tensor, "N r V"]) -> Float[Tensor, " N"]:
    """Frobenius norms of the atoms `sum_r v_ir w_ir^T`, `[N]`, for factors `[N, r, K]`, `[N, r, V]`."""
    return ((v @ v.mT) * (w @ w.mT)).sum((1, 2)).clamp_min(0).sqrt()


_NOT_ATTACHED = "`writesae.artifacts` gives a dictionary its `save` and `push_to_hub`: import it before they are called"


class SAE(nn.Module):
    """A sparse dictionary of matrices. Parameters, by the parts of the config (`r` the rank):

    `v_enc` `[N, r, K]`, `w_enc` `[N, r, V]` (bilinear, not tied) or `enc` `[N, K, V]` (linear), `b_enc` `[N]`;
    `v_dec` `[N, r, K]`, `w_dec` `[N, r, V]` (factored) or `dec` `[N, K, V]` (flat), `bias` `[K, V]`;
    `threshold` (`[N]` for JumpReLU, scalar buffer for BatchTopK), `r_mag`, `b_mag` `[N]` (Gated),
    `r_gate`, `b_gate` `[N]` (SoftGated). They act on raw matrices: nothing is subtracted before encoding.
    """

    config: SAEConfig
    record: Record | None
    """Where it comes from, set by training and loading; None for one made by hand."""
    v_enc: Tensor
    w_enc: Tensor
    enc: Tensor
    b_enc: Tensor
    v_dec: Tensor
    w_dec: Tensor
    dec: Tensor
    bias: Tensor
    threshold: Tensor
    r_mag: Tensor
    b_mag: Tensor
    r_gate: Tensor
    b_gate: Tensor
    width: float | None
    """Window of JumpReLU's threshold gradient, which the trainer sets; None: see `window`."""

    def __init__(self, config: SAEConfig, generator: torch.Generator | None = None) -> None:
        """Random unit-norm atoms, the encoder equal to the decoder, zero biases (dense encoders: unit norm)."""
        super().__init__()
        self.config, self.record = config, None
        n, d_k, d_v = config.features, config.d_k, config.d_v

        def random(*shape: int) -> Tensor:
            x = torch.randn(shape, generator=generator)
            return torch.nn.functional.normalize(x.flatten(1), dim=1).view(shape)

        encoder, decoder, sparsity = config.encoder, config.decoder, config.sparsity
        if isinstance(decoder, Factored):
            scale = decoder.rank**0.25  # rank r: each pair has norm 1/sqrt(r), so a random atom has norm about 1
            self.v_dec = nn.Parameter(random(n, decoder.rank, d_k) * scale)
            self.w_dec = nn.Parameter(random(n, decoder.rank, d_v) * scale)
        else:
            self.dec = nn.Parameter(random(n, d_k, d_v))
        if isinstance(encoder, Bilinear):
            if not encoder.tied:
                same = isinstance(decoder, Factored) and decoder.rank == encoder.rank
                scale = encoder.rank**0.25
                self.v_enc = nn.Parameter(self.v_dec.detach().clone() if same else random(n, encoder.rank, d_k) * scale)
                self.w_enc = nn.Parameter(self.w_dec.detach().clone() if same else random(n, encoder.rank, d_v) * scale)
        else:
            self.enc = nn.Parameter(self.atom_matrices().detach().clone())
        self.b_enc = nn.Parameter(torch.zeros(n))
        self.bias = nn.Parameter(torch.zeros(d_k, d_v))
        self.width = None
        if isinstance(sparsity, JumpReLU):
            self.threshold = nn.Parameter(torch.zeros(n))
        elif isinstance(sparsity, BatchTopK):
            self.register_buffer("threshold", torch.tensor(-1.0))
        elif isinstance(sparsity, Gated):
            self.r_mag, self.b_mag = nn.Parameter(torch.zeros(n)), nn.Parameter(torch.zeros(n))
        elif isinstance(sparsity, SoftGated):
            self.r_gate, self.b_gate = nn.Parameter(torch.zeros(n)), nn.Parameter(torch.zeros(n))

    @property
    def site(self) -> Site | None:
        """The head that it models; None where unknown."""
        return None if self.record is None else self.record.site

    @property
    def host(self) -> str | None:
        """Id of the model that it belongs to; None where unknown."""
        return None if self.record is None else self.record.host

    @property
    def target(self) -> Target:
        """The matrix that it models."""
        return self.config.target

    @property
    def encoder_factors(self) -> tuple[Tensor, Tensor]:
        """`(v [N, r, K], w [N, r, V])` of a bilinear encoder; the decoder's where tied."""
        return (self.v_dec, self.w_dec) if self.config.tied else (self.v_enc, self.w_enc)

    def preactivations(self, matrices: Float[Tensor, "*T K V"]) -> Float[Tensor, "*T N"]:
        """`p` `[..., N]` of matrices `[..., K, V]`, dense."""
        if isinstance(self.config.encoder, Bilinear):
            v, w = self.encoder_factors
            some = torch.split(matrices.reshape(-1, *matrices.shape[-2:]), max(1, PROJECTED // w.numel()))
            parts = [torch.einsum("nrk,tkv,nrv->tn", v, x, w) for x in some]
            return torch.cat(parts).view(*matrices.shape[:-2], -1) + self.b_enc
        return torch.einsum("nkv,...kv->...n", self.enc, matrices) + self.b_enc

    @torch.no_grad()
    def increments(self, key: Float[Tensor, "*T K"], value: Float[Tensor, "*T V"]) -> Float[Tensor, "*T N"]:
        """What writes `key value^T` (`[..., K]`, `[..., V]`) add to every feature, `[..., N]`: `<E_i, W>`, the change
        of its pre-activation where the write is added to any state (MATH.md section 8). The offset is gone.

        Whether a feature is on (TopK, a threshold, a gate) is a matter of the whole state and has no part in it. Where
        the amount is scaled when it is on (Gated), so is the increment; a soft gate is taken as open.
        """
        self._check((key.shape[-1], value.shape[-1]))
        if isinstance(self.config.encoder, Bilinear):
            v, w = self.encoder_factors
            found = (torch.einsum("nrk,...k->...nr", v, key) * torch.einsum("nrv,...v->...nr", w, value)).sum(-1)
        else:
            found = torch.einsum("nkv,...k,...v->...n", self.enc, key, value)
        return found * self.r_mag.exp() if isinstance(self.config.sparsity, Gated) else found

    def activations(self, pre: Float[Tensor, "*T N"]) -> Codes | Float[Tensor, "*T N"]:
        """Codes of pre-activations `[..., N]`: sparse for TopK, else dense `[..., N]`. Differentiable."""
        sparsity = self.config.sparsity
        if isinstance(sparsity, TopK):
            return top_codes(pre, sparsity.k)
        if isinstance(sparsity, BatchTopK):
            if self.threshold < 0:  # none was learnt (a new one, or an import without): the batch decides
                return keep_batch_top(pre, sparsity.k)
            return pre * (pre > self.threshold.clamp_min(0))
        if isinstance(sparsity, JumpReLU):
            return jump(pre, self.threshold, self.window())
        if isinstance(sparsity, Gated):
            magnitude = self.r_mag.exp() * (pre - self.b_enc) + self.b_mag
            return magnitude.relu() * (pre > 0)
        gate = self.r_gate.exp() * (pre - self.b_enc) + self.b_gate
        return gate.sigmoid() * pre.relu()

    def window(self) -> Tensor | float:
        """Width of JumpReLU's window; without a trainer `bandwidth` times the mean threshold, or 1 where that is 0."""
        assert isinstance(self.config.sparsity, JumpReLU)
        mean = self.threshold.detach().mean()
        return self.width or self.config.sparsity.bandwidth * torch.where(mean > 0, mean, 1.0)

    def codes(self, pre: Float[Tensor, "*T N"]) -> Codes:
        """`Codes` of pre-activations `[..., N]`."""
        codes = self.activations(pre)
        return codes if isinstance(codes, Codes) else pack(codes)

    @torch.no_grad()
    def encode(self, matrices: Float[Tensor, "*T K V"]) -> Codes:
        """Codes `[..., J]` of matrices `[..., K, V]`, by the dense form. Raises InputError on another shape."""
        self._check(matrices.shape[-2:])
        return self.codes(self.preactivations(matrices))

    @torch.no_grad()
    def encode_written(self, written: Written, initial: Float[Tensor, "B K V"] | None = None) -> Codes:
        """Codes `[B, T, J]` of what one head writes, by the factored path (MATH.md section 3).

        `written` is as read from a store, beginning at the first token of its sequences or at the state `initial`
        (`[B, K, V]`), whatever the target: a `write-value` dictionary recovers the native values itself. Raises
        InputError on another head size, or for BatchTopK without a threshold, whose codes would depend on how the
        sequences are cut.
        """
        if isinstance(self.config.sparsity, BatchTopK) and self.threshold < 0:
            raise InputError(
                "this BatchTopK dictionary holds no threshold, so its codes depend on the batch: encode matrices "
                "with `encode`, train it, or import it again with a threshold (convert --threshold)"
            )
        self._check((written.key.shape[-1], written.update.shape[-1]))
        parts = [self.codes(pre) for pre in preactivation_chunks(self, written, initial)]
        width = max(part.index.shape[-1] for part in parts)

        def padded(x: Tensor) -> Tensor:
            return nn.functional.pad(x, (0, width - x.shape[-1]))

        return Codes(
            torch.cat([padded(part.index) for part in parts], 1), torch.cat([padded(part.value) for part in parts], 1)
        )

    def decode(self, codes: Codes) -> Float[Tensor, "*T K V"]:
        """Reconstruction `[..., K, V]` of codes `[..., J]`. Differentiable in the codes and the atoms."""
        if isinstance(self.config.decoder, Flat):
            return self.bias + torch.einsum("...n,nkv->...kv", codes.dense(self.config.features), self.dec)
        index = codes.index.flatten()
        shape = codes.index.shape
        v = self.v_dec.index_select(0, index).reshape(*shape, *self.v_dec.shape[1:])
        w = self.w_dec.index_select(0, index).reshape(*shape, *self.w_dec.shape[1:])
        weighted = (codes.value[..., None, None] * v).flatten(-3, -2)
        return self.bias + weighted.mT @ w.flatten(-3, -2)

    def forward(self, matrices: Float[Tensor, "*T K V"]) -> Float[Tensor, "*T K V"]:
        """Reconstruction of matrices `[..., K, V]`, dense and differentiable: the reference."""
        codes = self.activations(self.preactivations(matrices))
        dense = codes.dense(self.config.features) if isinstance(codes, Codes) else codes
        return self.bias + torch.einsum("...n,nkv->...kv", dense, self.atom_matrices())

    def on(self, device: torch.device) -> SAE:
        """This dictionary, or a copy where it is not on the device in float32 or more."""
        one = next(self.parameters())
        dtype = torch.promote_types(one.dtype, torch.float32)
        there = (one.device, one.dtype) == (torch.device(device), dtype)
        return self if there else copy.deepcopy(self).to(device, dtype)

    def atom_matrices(self, features: Int[Tensor, " n"] | None = None) -> Float[Tensor, "n K V"]:
        """Atoms as matrices: of these features, `[n, K, V]`, or of all, `[N, K, V]`."""
        some = slice(None) if features is None else features
        if isinstance(self.config.decoder, Flat):
            return self.dec[some]
        return torch.einsum("nrk,nrv->nkv", self.v_dec[some], self.w_dec[some])

    @torch.no_grad()
    def atoms(self) -> Atoms:
        """Rank-1 atoms such that `a_i v_i w_i^T` is what feature `i` adds. Raises InputError for other decoders."""
        if not isinstance(self.config.decoder, Factored) or self.config.decoder.rank != 1:
            raise InputError(f"rank-1 atoms were asked of a dictionary with a {self.config.decoder} decoder")
        return Atoms(self.v_dec[:, 0].clone(), self.w_dec[:, 0].clone())

    def _check(self, shape: tuple[int, ...] | torch.Size) -> None:
        if tuple(shape) != (self.config.d_k, self.config.d_v):
            given = " x ".join(map(str, shape))
            raise InputError(
                f"a dictionary for {self.config.d_k} x {self.config.d_v} matrices was given {given}: "
                "it belongs to a head of another size (d_k x d_v)"
            )

    @torch.no_grad()
    def rescale_(self, factor: float) -> None:
        """Turn a dictionary trained on `factor * X` into the same dictionary of raw `X`, exactly: `a(X) = a' / factor`.

        Every part is homogeneous in `X` once its offsets are divided; only the soft gate's slope is multiplied.
        """
        if not math.isfinite(factor) or factor <= 0:
            raise InputError(f"a dictionary was to be rescaled by {factor}; the factor must be finite and positive")
        for name in ("b_enc", "bias", "threshold", "b_mag"):
            if hasattr(self, name):
                getattr(self, name).div_(factor)
        if isinstance(self.config.sparsity, SoftGated):
            self.r_gate.add_(math.log(factor))
        if self.width is not None:
            self.width /= factor

    @torch.no_grad()
    def normalise_(self) -> None:
        """Give every atom unit norm (each side of a rank-1 atom) and rescale its encoder so that `a_i X_i` stays.

        Rescaling a pre-activation can change which features TopK picks, so training does this often and each time
        by little. A tied encoder cannot be rescaled on its own: its norm is a constraint, and the codes follow it.
        """
        if isinstance(self.config.decoder, Flat):
            norm = self.dec.flatten(1).norm(dim=1)
            self.dec.div_(norm.clamp_min(1e-12)[:, None, None])
        else:
            v, w = self.v_dec, self.w_dec
            balance = (w.flatten(1).norm(dim=1) / v.flatten(1).norm(dim=1).clamp_min(1e-12)).clamp_min(1e-12).sqrt()
            norm = atom_norms(v, w)
            root = norm.clamp_min(1e-12).sqrt()
            v.mul_((balance / root)[:, None, None])
            w.div_((balance * root)[:, None, None])
        if self.config.tied:
            return
        if isinstance(self.config.encoder, Bilinear):
            self.v_enc.mul_(norm[:, None, None])
        else:
            self.enc.mul_(norm[:, None, None])
        self.b_enc.mul_(norm)
        if isinstance(self.config.sparsity, JumpReLU):
            self.threshold.mul_(norm)
        elif isinstance(self.config.sparsity, Gated):
            self.b_mag.mul_(norm)
        elif isinstance(self.config.sparsity, SoftGated):
            self.r_gate.sub_(norm.clamp_min(1e-12).log())

    def save(self, folder: str | Path, record: Record | None = None, *, replace: bool = False) -> None:
        """Write a dictionary folder; the same as `writesae.save_sae(self, folder, record, replace=replace)`."""
        raise InputError(_NOT_ATTACHED)

    def push_to_hub(self, repo: str, record: Record | None = None, *, private: bool = False) -> str:
        """Upload to the Hub as a cell of the repository's collection: `writesae.push_sae`. Returns the address."""
        raise InputError(_NOT_ATTACHED)

    def extra_repr(self) -> str:
        """One line a part of the config, and where it comes from."""
        return text(self)

    def _repr_html_(self) -> str:
        return html(self)
