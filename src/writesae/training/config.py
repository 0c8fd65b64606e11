"""What a training run is. Free of torch, so that flags can be built from it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from writesae.config import at_least, checked
from writesae.errors import ConfigError
from writesae.sae.config import BatchTopK, Dictionary, JumpReLU, SAEConfig, TopK
from writesae.types import Site

EPOCHS = 20.0
"""Passes over the training sequences where nothing else is asked for."""
Precision = Literal["float32", "tf32", "bfloat16"]


@dataclass(frozen=True)
class _Of:
    site: Site
    """The head whose matrices are modelled."""


@checked
@dataclass(frozen=True)
class TrainConfig(Dictionary, _Of):
    """One dictionary for one head. The defaults are the published recipe (paper App. D, Table 8)."""

    epochs: float | None = None
    """Passes over the training sequences; None: 20, or as many as `steps` are."""
    steps: int | None = None
    """Optimiser steps; None: as many as `epochs` take."""
    batch: int = 256
    """Tokens a step (rounded up to whole chunks where the target is the state)."""
    chunk: int | None = None
    """Consecutive tokens that share one rebuilt state; None: half the head size, 16 to 64. State target only."""
    stride: int = 1
    """Distance between a chunk's tokens that one step trains on; it divides the chunk. Above 1, a chunk is used up in
    `stride` visits and a batch mixes so many times more chunks, nearer to independent tokens: with 4, within 3% of
    their held-out error, for about twice the time a step. State target only."""
    lr: float = 3e-4
    """Adam's learning rate after the warm-up."""
    lr_end: float = 3e-5
    """Learning rate at the end of the cosine."""
    warmup: int = 50
    """Steps of linear warm-up."""
    clip: float | None = 1.0
    """Largest norm of the whole gradient (data are scaled to variance 1); None: not clipped."""
    aux_weight: float = 1e-2
    """Weight of the auxiliary loss on dead features; 0 turns it off."""
    aux_k: int = 256
    """Most dead features that model a token's residual."""
    dead_after: int = 100
    """Steps without firing after which a feature counts as dead."""
    renormalise_every: int = 100
    """Steps between exact renormalisations of the atoms (codes rescaled); 0: only at the end."""
    resample_every: int = 250
    """Steps between resamplings of dead features; 0: never."""
    resample_until: float = 0.8
    """Share of the run after which nothing is resampled any more."""
    k_start: int | None = None
    """`k` at the first step, falling linearly to the sparsity's own `k`; None: constant."""
    k_steps: int = 0
    """Steps over which `k` falls."""
    bandwidth_end: float = 1.0
    """Factor by which JumpReLU's bandwidth has shrunk at the end, linearly."""
    init: Literal["random", "writes"] = "random"
    """Atoms at the start: random directions, or writes that the head really made."""
    validation: float = 0.2
    """Share of the sequences that is held out."""
    validate_every: int = 500
    """Steps between evaluations on held-out sequences; 0: only at the end."""
    validate_tokens: int = 16384
    """Most held-out tokens of one evaluation."""
    patience: int = 0
    """Evaluations without a better explained variance after which the run stops; 0: never."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    log_every: int = 20
    """Steps between records in the history."""
    memory: float = 4.0
    """GiB of writes and chunk-start states that may be held at once, by all runs of one call together; of more, a run
    reads shuffled groups of sequences."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`: a CUDA device where there is one."""
    precision: Precision = "float32"
    """Of matrix products: `float32` exactly; `tf32` on CUDA devices that have it; `bfloat16` also rounds the factors of
    the products that pick the features of TopK and BatchTopK, and so the values of their codes while training (sums
    stay fp32). Its cost in explained variance was at most 0.0002 (tiny-gdn L5.H0, both targets). No gain on a CPU."""
    threads: int = 1
    """CPU threads; 0 leaves torch's setting. A step's products are small: more threads gain little on an idle machine
    and lose several-fold on a busy one, while two runs side by side use two cores fully. Bits depend on the number."""
    seed: int = 0
    """Everything random follows from it."""

    def __post_init__(self) -> None:
        at_least(self, **dict.fromkeys(("stride", "batch", "log_every", "checkpoint_every", "dead_after"), 1))
        at_least(self, validate_tokens=1, chunk=1, renormalise_every=0, resample_every=0, validate_every=0)
        at_least(self, warmup=0, aux_weight=0, aux_k=1, patience=0, k_steps=0, threads=0)
        if self.steps is not None and self.epochs is not None:
            raise ConfigError(f"steps={self.steps} and epochs={self.epochs} both say how long a run is: give one")
        if (self.epochs is not None and self.epochs <= 0) or (self.steps is not None and self.steps < 1):
            raise ConfigError(f"a run needs steps or epochs above 0, not steps={self.steps}, epochs={self.epochs}")
        if not self.memory > 0:
            raise ConfigError(f"memory is GiB above 0, not {self.memory}")
        if not 0 < self.validation < 1:
            raise ConfigError(f"validation is a share of the sequences between 0 and 1, not {self.validation}")
        if not 0 < self.lr_end <= self.lr:
            raise ConfigError(f"learning rates need 0 < lr_end <= lr, not lr={self.lr}, lr_end={self.lr_end}")
        if self.k_start is not None and not isinstance(self.sparsity, TopK | BatchTopK):
            raise ConfigError(f"k_start is for TopK and BatchTopK, not for {self.sparsity}")
        self._check_effects()

    def _check_effects(self) -> None:
        """Refuse a setting that would change nothing."""
        for names, idle, where in (
            (("chunk", "stride"), self.target != "state", f"on the target {self.target}, whose tokens are single"),
            (("k_start",), self.k_steps == 0, "without k_steps"),
            (("k_steps",), self.k_start is None, "without k_start"),
            (("bandwidth_end",), not isinstance(self.sparsity, JumpReLU), "without JumpReLU"),
            (("patience",), self.validate_every == 0, "without evaluations (validate_every is 0)"),
        ):
            for name in names:
                if idle and getattr(self, name) != type(self).__dataclass_fields__[name].default:
                    raise ConfigError(f"{name}={getattr(self, name)} has no effect {where}: leave it out")

    @property
    def name(self) -> str:
        """Folder name of a run among several."""
        return f"{self.site}_{self.target}_seed{self.seed}"

    def sae(self, d_k: int, d_v: int) -> SAEConfig:
        """The dictionary that this run trains for a head of `d_k x d_v`; raises ConfigError if it is impossible."""
        if self.k_start is not None and not 1 <= self.k_start <= self.features:
            raise ConfigError(f"k_start = {self.k_start} must lie between 1 and features = {self.features}")
        return SAEConfig(d_k, d_v, **{field.name: getattr(self, field.name) for field in fields(Dictionary)})
