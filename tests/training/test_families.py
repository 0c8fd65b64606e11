"""From a host of every kind of recurrence to a dictionary of its states: what is trained on is what the host holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_train import SMALL

from random_hosts import first_site, host_parameter, relative, some_tokens, tiny_host
from writesae.recurrence import replay_reference
from writesae.sae import evaluate
from writesae.store import capture
from writesae.training import train
from writesae.training.chunks import whole_batches
from writesae.training.sequences import read_sequences, split_sequences

KINDS = [host_parameter(name) for name in ("qwen3_5", "mamba2", "kimi_linear", "fla_gla", "rwkv7_hf")]
"""Scalar decay with and without an erase, vector decay with and without one, and two writes a token."""


@pytest.mark.parametrize("name", KINDS)
def test_states_of_every_kind_of_recurrence_are_learnt(name: str, tmp_path: Path) -> None:
    host = tiny_host(name)
    site, tokens = first_site(host), some_tokens(rows=11, time=19)
    store = capture(
        host, tokens, [site.layer], tmp_path / "s", store_dtype="float32", batch=4, progress=lambda *_: None
    )
    config = replace(SMALL, site=site, chunk=5, batch=20, steps=80, validate_every=0, init="writes")
    batches = whole_batches(read_sequences(store, config, [2, 3, 7]), config, 5, 1.0)
    found = torch.cat([b.matrices() for b in batches])
    states = replay_reference(host.record(tokens[[2, 3, 7]], [site.layer])[site.layer].heads(site.head)).states[:, :, 0]
    for end in (4, 18):  # chunks of whole sequences, then their rest
        for state in states[:, end]:
            nearest = found[(found - state).flatten(1).norm(dim=1).argmin()]
            assert relative(nearest, state) < 1e-5
    assert relative(found.sum(0), states.sum((0, 1))) < 1e-5
    result = train(store, config, tmp_path / "run")
    assert result.metrics.tokens == 2 * 19
    seen = whole_batches(read_sequences(store, config, split_sequences(store, config).train), config, 5, 1.0)
    assert evaluate(result.sae, seen).explained_variance > 0.3
