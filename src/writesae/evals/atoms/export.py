"""Portraits in the feature JSON of SAEDashboard, which Neuronpedia reads: one batch file, `batch-0.json`.

Keys follow `NeuronpediaDashboardBatch` of SAEDashboard 0.6. What the format has no place for (the atom's two sides,
KLs, cosines to the write) stays in the result's own files; what it asks for and a dictionary of writes has not (neurons
to align with) is left empty. Positive and negative logits are those of the direct path, as there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from writesae.config import Json
from writesae.disk import make_folder, write_json
from writesae.errors import InputError
from writesae.evals.atoms import AtomsConfig
from writesae.evals.atoms.summary import Summary
from writesae.evals.common.result import Result

BATCH = "batch-0.json"


def write_neuronpedia(result: Result[AtomsConfig, Summary], folder: str | Path) -> Path:
    """Write the batch file of a result of `atoms` into a folder; raises InputError for a result of another kind."""
    if result.name != "atoms":
        raise InputError(f"Neuronpedia's format holds portraits of atoms, not a result of {result.name}")
    make_folder(Path(folder))
    path = Path(folder) / BATCH
    write_json(path, batch(result))
    return path


def batch(result: Result[AtomsConfig, Summary]) -> dict[str, Json]:
    """The file's content."""
    source = result.provenance
    contexts = dict(list(result.more["contexts"].groupby("feature")))
    tokens = dict(list(result.more["tokens"].query("path == 'direct'").groupby("feature")))
    rows = result.records.to_dict("records")
    features: list[Json] = [_feature(result, row, contexts[row["feature"]], tokens[row["feature"]]) for row in rows]
    site = source.sites[0]
    return {
        "model_id": source.host,
        "layer": site.layer,
        "sae_set": f"writesae-h{site.head}-{source.dictionaries[0].target}",
        "features": features,
    }


def _feature(result: Result[Any, Any], row: Any, contexts: pd.DataFrame, tokens: pd.DataFrame) -> dict[str, Json]:
    up, down = (tokens[tokens.sign == sign].sort_values("rank") for sign in (1, -1))
    heights = np.asarray(row["histogram"])
    width = float(row["largest"]) / len(heights)
    text = result.provenance.text
    empty: dict[str, Json] = {
        name: []
        for name in (
            "neuron_alignment_indices", "neuron_alignment_values", "neuron_alignment_l1", "correlated_neurons_indices",
            "correlated_neurons_l1", "correlated_neurons_pearson", "correlated_features_l1",
            "correlated_features_pearson", "logits_hist_data_bar_heights", "logits_hist_data_bar_values",
            "decoder_weights_dist",
        )
    }  # fmt: skip
    return empty | {
        "feature_index": int(row["feature"]),
        "correlated_features_indices": [int(i) for i in row["companions"]],
        "neg_str": list(down.text),
        "neg_values": [float(x) for x in down.score],
        "pos_str": list(up.text),
        "pos_values": [float(x) for x in up.score],
        "frac_nonzero": float(row["rate"]),
        "freq_hist_data_bar_values": [float((i + 0.5) * width) for i in range(len(heights))],
        "freq_hist_data_bar_heights": [int(n) for n in heights],
        "n_prompts_total": text.passages,
        "n_tokens_in_prompt": text.length,
        "dataset": text.corpus,
        "activations": [_activation(one, result.config, heights, width) for one in contexts.to_dict("records")],
    }


def _activation(row: Any, config: AtomsConfig, heights: Any, width: float) -> dict[str, Json]:
    """One context: its tokens with the feature's coefficients, and the part of the activations that it stands for."""
    place = min(len(heights) - 1, int(float(row["coefficient"]) / width))
    return {
        "bin_min": place * width,
        "bin_max": (place + 1) * width,
        "bin_contains": float(heights[place] / heights.sum()),
        "tokens": [str(token) for token in row["tokens"]],
        "values": [float(value) for value in row["values"]],
    }
