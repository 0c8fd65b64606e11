"""Which measurement answers which claim, how its number is read, and what would be no effect.

A claim that is bound to nothing says why. To bind a new one: an entry here, and where its measurement is new, a line in
`MEASUREMENTS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from writesae.reproduce import answers
from writesae.reproduce.answers import Read
from writesae.reproduce.dictionaries import VARIANTS


@dataclass(frozen=True)
class Measurement:
    """One evaluation with what it is given."""

    evaluation: str
    dictionaries: tuple[str, ...] = ()
    """`KIND/SEED` (`dictionaries.KINDS`); `KIND/*` all seeds, one result each; `KIND/+` all seeds for one result;
    `layer/KIND` all heads of the main head's layer, `layers/KIND` a head of every part of the model, `cells/KIND` both,
    one result each; `ks/SEED` states by the number of active atoms; `shipped/NAME` comes with the package; none where
    the evaluation takes none."""
    options: Mapping[str, Any] = field(default_factory=dict)
    site: bool = False
    """Whether the main head is named, as no dictionary names it."""
    english: bool = False
    """Whether its text is English on every host."""


FEW = {"amplitudes": ("coefficient",), "timings": ("after_token",)}
"""What is measured at many heads."""
FACTS = {"names": 11, "things": 33, "counts": (8,), "gap": 0, "reach": 5, "tried": 4, "amplitudes": "coefficient",
         "pairs_on": 48, "baselines": ()}  # fmt: skip
"""Of the pairs that the shipped dictionaries know; a fact is looked for at the tokens of its own statement."""
MEASUREMENTS: Mapping[str, Measurement] = {
    "spectrum": Measurement("spectrum"),
    "substitution-states": Measurement("substitution", ("states/*",)),
    "substitution-writes": Measurement("substitution", ("writes/0",)),
    "substitution-flat": Measurement(
        "substitution", ("states/0 flat/0",), {"controls": ("flat_svd",), "amplitudes": ("coefficient",)}
    ),
    "substitution-layer": Measurement("substitution", ("layer/states",), FEW),
    "substitution-layers": Measurement("substitution", ("layers/states",), FEW),
    "population-states": Measurement("population", ("states/0",)),
    "population-norm": Measurement("population", ("states/0",), {"amplitudes": ("norm",), "timings": ("after_token",)}),
    "partition-states": Measurement("partition", ("states/*",)),
    "partition-layer": Measurement("partition", ("layer/states",)),
    "partition-batchtopk": Measurement("partition", ("batchtopk/0",)),
    "partition-jumprelu": Measurement("partition", ("jumprelu/0",)),
    "passage_loss-states": Measurement("passage_loss", ("states/0",)),
    "fidelity-states": Measurement("fidelity", ("states/0",)),
    "fidelity-rank2": Measurement("fidelity", ("rank2/0",)),
    "fidelity-flat": Measurement("fidelity", ("flat/0",)),
    "fidelity-matrix": Measurement("fidelity", ("matrix/0",)),
    **{f"quality-{kind}": Measurement("quality", (f"layers/{kind}",)) for kind in VARIANTS},
    "quality-ks": Measurement("quality", ("states/0", "ks/0")),
    "logit_shift-states": Measurement("logit_shift", ("states/0",)),
    "selectivity-cells": Measurement("selectivity", ("cells/states",)),
    "readers-states": Measurement("readers", ("states/0",)),
    "erasure-measured": Measurement("erasure", ("states/0",), {"follow": "measured"}),
    "sign": Measurement("sign", (), {}, site=True),
    "installs-one-head": Measurement("installs", (), {}, site=True),
    "installs-all-heads": Measurement("installs", (), {"site": "all", "timings": ("at_token",)}),
    "amplification-writes": Measurement("amplification", ("writes/0",)),
    "seeds-states": Measurement("seeds", ("states/+",)),
    "recall": Measurement("recall", ("shipped/state shipped/write",), FACTS, english=True),
}
"""Every measurement that a claim asks for, once."""


@dataclass(frozen=True)
class Binding:
    """What answers one claim."""

    claim: str
    asks: tuple[str, ...]
    """Names of measurements."""
    read: Read
    published: str
    """Which of its figures ours stand beside: a path like `value` or `rows.0.win`; empty where none was published."""
    by_family: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    """The path where it is another for a family of hosts, or the only ones that have a number."""
    nothing: float
    """The value of no effect."""
    rising: bool = True
    """Whether the claim, where it holds, lies above `nothing`."""
    no_effect: bool = False
    """Whether the claim is that nothing happens."""
    differs: str = ""
    """What is done otherwise than published, beside host and sizes."""
    family: str = ""
    """The only family of hosts on which the claim has a meaning; empty for all."""
    host: str = ""
    """The only host on which it can be measured; empty for all."""


STATES = ("substitution-states",)
QUALITIES = tuple(f"quality-{kind}" for kind in VARIANTS)
WINS = answers.wins(*STATES)
BINDINGS: tuple[Binding, ...] = (
    Binding(
        "substitution.pooled", (*STATES, "substitution-writes"), answers.wins(*STATES, "substitution-writes"), "value",
        0.5, differs="one head, tokens drawn at random",
    ),
    Binding(
        "substitution.per_layer", ("substitution-layers",), answers.by_layer(answers.median_ratio, "derived.ratios"),
        "derived.ratios.1", 1.0, rising=False,
        differs="median KL of the atom over that of deletion, at a head of every part of the model",
    ),
    Binding(
        "substitution.strict_chain", STATES, answers.of_records("substitution-states", answers.strict_chain), "value",
        1 / 6, differs="chance is one order of six",
    ),
    Binding(
        "substitution.effect_size", STATES, answers.of_records("substitution-states", answers.paired_delta), "value",
        0.0,
    ),
    Binding(
        "substitution.failures", STATES, answers.of_records("substitution-states", answers.failures_fall),
        "derived.fall", 0.0, differs="failure rate in the first quarter minus that in the last",
    ),
    Binding("population", ("population-states",), answers.population, "value", 0.5),
    Binding("all_heads", ("substitution-layer",), answers.all_heads, "value", 0.5),
    Binding(
        "partition", ("partition-states",), answers.partition(), "register_median_cosine", 0.0,
        differs="median cosine of the registers; their number is in the row",
    ),
    Binding(
        "passage_nll", ("passage_loss-states",), answers.first_counts(answers.passage_loss), "derived.excess", 0.0
    ),
    Binding(
        "fidelity.ppl", ("fidelity-states", "fidelity-flat", "fidelity-matrix"),
        answers.first_counts(answers.fidelity), "rows.0.delta", 0.0, no_effect=True,
        differs="one head; states replaced once, after half of each passage",
    ),
    Binding(
        "encoder_swap.mse", QUALITIES, answers.encoders("mse", *VARIANTS), "derived.excess", 0.0,
        differs="one head of every part of the model; ranks stand below the encoders",
    ),
    Binding(
        "dead_features", ("quality-flat", "quality-states"), answers.encoders("dead", "flat", "states"), "derived.gap",
        0.0, differs="one k; a feature is dead that never fires in the held-out passages",
    ),
    Binding(
        "logit_shift.r2", ("logit_shift-states",),
        answers.first_counts(answers.one_after_another(answers.logit_shift_fitted, answers.logit_shift_unfitted)),
        "value", 0.0,
        differs="with a factor a cell every predictor reaches this, whatever it predicts: see the unfitted ones",
    ),
    Binding(
        "logit_shift.other_hosts", ("logit_shift-states",), answers.logit_shift_unfitted, "derived.mamba2", 0.0,
        differs="nothing fitted", family="mamba2",
    ),
    Binding(
        "selectivity", ("selectivity-cells",), answers.selectivity, "value", 0.0,
        differs="cells: every head of one layer and one of every other part of the model",
    ),
    Binding("edit.erase", ("erasure-measured",), answers.erasure("delete", 1.0), "value", 0.0, rising=False),
    Binding(
        "edit.erase_control", ("erasure-measured",), answers.erasure("elsewhere", 4.0), "value", 0.0, no_effect=True,
        differs="published as no effect (p 0.15)",
    ),
    Binding("edit.sign", ("sign",), answers.sign, "value", 0.5),
    Binding(
        "edit.install", ("installs-one-head", "installs-all-heads"), answers.installs, "derived.lift", 0.0,
        differs="share beyond the unedited continuations'",
    ),
    Binding(
        "edit.install.mamba2", ("installs-one-head", "installs-all-heads"), answers.installs, "value", 0.0,
        family="mamba2",
    ),
    Binding(
        "edit.amplify_newlines", ("amplification-writes",), answers.amplification, "derived.change", 0.0, rising=False,
        differs="dictionary of writes; change against unedited continuations",
    ),
    Binding(
        "hosts.cosine", ("partition-states",), answers.partition(), "", 0.0,
        by_family={
            "deltanet": "rows.0.value", "gated-deltanet": "rows.1.value", "rwkv7": "rows.4.value",
            "gla": "rows.5.value", "mamba2": "rows.6.value",
        },
    ),
    Binding("hosts.mamba2", STATES, WINS, "value", 0.5, family="mamba2"),
    Binding("hosts.rwkv7", STATES, WINS, "value", 0.5, family="rwkv7"),
    Binding("hosts.qwen4b", STATES, WINS, "value", 0.5, family="gated-deltanet"),
    Binding("hosts.deltanet", STATES, WINS, "value", 0.5, family="deltanet"),
    Binding(
        "flat_svd", ("substitution-flat",), answers.of_records("substitution-flat", answers.beats_flat), "", 0.0,
        by_family={
            "gated-deltanet": "derived.qwen", "mamba2": "derived.mamba2", "rwkv7": "derived.rwkv7",
        },
        differs="whether the atom wins more often; of other families no number was published",
    ),
    Binding(
        "rank2", ("fidelity-states", "fidelity-rank2"), answers.rank_two, "derived.percent", 0.0, no_effect=True,
        differs="one head; states replaced once, after half of each passage",
    ),
    Binding(
        "seeds", ("seeds-states",), answers.seeds, "atom_match", 0.1, rising=False,
        differs="taken for different dictionaries where fewer than a tenth of atoms match",
    ),
    Binding(
        "sparsity_family", ("partition-batchtopk", "partition-jumprelu"),
        answers.one_after_another(
            answers.partition("partition-batchtopk", "BatchTopK", "rows.0.cosine"),
            answers.partition("partition-jumprelu", "JumpReLU", "rows.1.cosine"),
        ), "rows.0.cosine", 0.0,
    ),
    Binding(
        "native_norm_inversion", ("population-norm",),
        answers.of_records("population-norm", answers.bundle_ratio, "norm"), "derived.ratio", 1.0,
        differs="median KL over deletion's, firings of all sampled bundle atoms at the write's norm; published: one",
    ),
    Binding("readers", ("readers-states",), answers.readers, "derived.least", 1.0),
    Binding(
        "causal_axes", ("population-states",), answers.of_records("population-states", answers.more_disruption),
        "derived.gap", 0.0,
        differs="share of firings where deletion changes the likeliest token, registers minus bundles",
    ),
    Binding(
        "firing_order", ("substitution-layers",), answers.by_layer(answers.strict_chain), "", 1 / 6,
        differs="share with KL of atom < deletion < random; chance is one order of six",
    ),
    Binding("class_distribution", ("partition-layer",), answers.class_distribution, "", 0.0),
    Binding("k_sweep", ("quality-ks",), answers.k_sweep, "", 0.0),
    Binding("spectral_audit", ("spectrum",), answers.spectral_audit, "", 0.0),
    Binding(
        "known_truth", ("recall",), answers.known_truth, "", 0.0, host="memory-gdn",
        differs="dictionaries of the writes that hold a fact come with the package, for memory-gdn",
    ),
)  # fmt: skip
