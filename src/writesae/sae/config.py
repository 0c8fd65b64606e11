"""What a dictionary is: encoder x sparsity x decoder, and the matrix that it models.

Every class here is free of torch, so the command line can build one without loading it. Symbols as in MATH.md:
`X` is the modelled matrix (`[K, V]`), `v` key side, `w` value side, `p_i` the pre-activation of feature `i`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from writesae.config import checked, register_union
from writesae.errors import ConfigError
from writesae.types import Target


@checked
@dataclass(frozen=True)
class Linear:
    """`p_i = <E_i, X> + b_i` with a full matrix a feature."""


@checked
@dataclass(frozen=True)
class Bilinear:
    """`p_i = sum_r v_ir^T X w_ir + b_i`."""

    rank: int = 1
    """Pairs `(v, w)` a feature; must equal the decoder's rank where tied."""
    tied: bool = False
    """Whether the encoder's factors are the decoder's."""


@checked
@dataclass(frozen=True)
class TopK:
    """The `k` largest positive pre-activations of each token."""

    k: int = 32
    """Most active features a token."""
    prefixes: tuple[int, ...] = ()
    """Matryoshka: dictionary sizes, rising and smaller than `features`, whose reconstruction is trained as well."""
    levels: tuple[int, ...] = ()
    """Numbers of a token's strongest codes, rising and smaller than `k`, whose reconstruction is trained as well:
    with `(1,)` the strongest atom alone is trained to stand for the whole matrix."""


@checked
@dataclass(frozen=True)
class BatchTopK:
    """The `k * tokens` largest positive pre-activations of a batch; a learnt threshold when it is used.

    After training `p_i` is kept where it exceeds the stored threshold, so a result never depends on the other
    tokens of a batch.
    """

    k: int = 32
    """Mean active features a token while training."""
    prefixes: tuple[int, ...] = ()
    """Matryoshka: dictionary sizes, rising and smaller than `features`, whose reconstruction is trained as well."""


@checked
@dataclass(frozen=True)
class JumpReLU:
    """`p_i` where it exceeds the feature's own threshold (Rajamanoharan et al. 2024b), else zero.

    The threshold is a plain fp32 parameter in the units of `p` (a log-threshold hardly moves under Adam) and gets
    its gradient from a rectangular window of width `bandwidth` around it.
    """

    l0: float = 32.0
    """Mean active features a token that the penalty `weight * (L0 / l0 - 1)^2` steers to."""
    weight: float = 1.0
    """Weight of that penalty, against a reconstruction error of 1 for an empty dictionary. With 1, L0 ended 5 to 9%
    above `l0` (tiny-gdn, 16 of 512 features), with 0.1 35 to 40%, and explained variance at one L0 was the same."""
    bandwidth: float = 0.2
    """Window width, in units of the mean pre-activation that fires at the start."""


@checked
@dataclass(frozen=True)
class Gated:
    """Hard gate `p_i > 0`, magnitude `relu(exp(r_i) (p_i - b_i) + m_i)` (Rajamanoharan et al. 2024a)."""

    weight: float = 0.01
    """Weight of the penalty `sum_i relu(p_i)`, against a reconstruction error of 1 for an empty dictionary."""


@checked
@dataclass(frozen=True)
class SoftGated:
    """`sigmoid(exp(r_i) (p_i - b_i) + g_i) relu(p_i)`: a gate that never closes, as the research code trained it."""

    weight: float = 0.01
    """Weight of the penalty on the sum of the codes, against a reconstruction error of 1."""


@checked
@dataclass(frozen=True)
class Flat:
    """`X^ = M + sum_i a_i D_i` with a full matrix an atom."""


@checked
@dataclass(frozen=True)
class Factored:
    """`X^ = M + sum_i a_i sum_r v_ir w_ir^T`."""

    rank: int = 1
    """Rank of an atom."""


Encoder = Linear | Bilinear
Sparsity = TopK | BatchTopK | JumpReLU | Gated | SoftGated
Decoder = Flat | Factored
for _union in (Encoder, Sparsity, Decoder):
    register_union(_union)


@dataclass(frozen=True)
class Dictionary:
    """What a dictionary is, whatever head it is for."""

    features: int = 2048
    """Number of atoms."""
    encoder: Encoder = field(default_factory=Bilinear)
    """How pre-activations are computed."""
    sparsity: Sparsity = field(default_factory=TopK)
    """Which features fire."""
    decoder: Decoder = field(default_factory=Factored)
    """What an atom is."""
    target: Target = "state"
    """The matrix that is modelled."""

    @property
    def levels(self) -> tuple[int, ...]:
        """Code counts below `k` that are trained as well; empty where there are none."""
        return self.sparsity.levels if isinstance(self.sparsity, TopK) else ()

    @property
    def tied(self) -> bool:
        """Whether encoder and decoder share their factors."""
        return isinstance(self.encoder, Bilinear) and self.encoder.tied

    @property
    def prefixes(self) -> tuple[int, ...]:
        """Matryoshka sizes below `features`; empty where there are none."""
        return self.sparsity.prefixes if isinstance(self.sparsity, TopK | BatchTopK) else ()


@dataclass(frozen=True)
class _Head:
    d_k: int
    """Key side of the modelled matrix."""
    d_v: int
    """Value side of the modelled matrix."""


@checked
@dataclass(frozen=True)
class SAEConfig(Dictionary, _Head):
    """A dictionary for matrices of shape `(d_k, d_v)`. Raises ConfigError where impossible."""

    def __post_init__(self) -> None:
        k = self.sparsity.k if isinstance(self.sparsity, TopK | BatchTopK) else 1
        sizes = {"d_k": self.d_k, "d_v": self.d_v, "features": self.features, "k": k}
        ranks = [part.rank for part in (self.encoder, self.decoder) if isinstance(part, Bilinear | Factored)]
        small = [f"{name} = {size}" for name, size in (*sizes.items(), *(("rank", r) for r in ranks)) if size < 1]
        if small:
            raise ConfigError(f"a dictionary was asked for with {', '.join(small)}: give at least 1")
        if k > self.features:
            raise ConfigError(
                f"k = {k} active features were asked of a dictionary of {self.features}; "
                "give more features or a smaller k"
            )
        if isinstance(self.encoder, Bilinear) and self.encoder.tied:
            rank = self.decoder.rank if isinstance(self.decoder, Factored) else None
            if rank != self.encoder.rank:
                raise ConfigError("a tied encoder needs a factored decoder of the same rank")
        prefixes = self.prefixes
        if list(prefixes) != sorted(set(prefixes)) or any(not 0 < p < self.features for p in prefixes):
            raise ConfigError(f"prefixes {prefixes} must rise and lie between 1 and features - 1 = {self.features - 1}")

        if list(self.levels) != sorted(set(self.levels)) or any(not 0 < j < k for j in self.levels):
            raise ConfigError(f"levels {self.levels} must rise and lie between 1 and k - 1 = {k - 1}")

    @property
    def numbers(self) -> int:
        """Numbers in the factors, matrices and biases of a dictionary; thresholds and gates come on top."""
        matrix, sides = self.d_k * self.d_v, self.d_k + self.d_v
        parts = [part for part in (self.encoder, self.decoder) if not (self.tied and part is self.encoder)]
        weights = sum(part.rank * sides if isinstance(part, Bilinear | Factored) else matrix for part in parts)
        return self.features * (weights + 1) + matrix
