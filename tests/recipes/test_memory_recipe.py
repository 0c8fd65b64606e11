"""The memory recipe: its recurrence equals the reference, its tokenizer extends tiny-gdn's, and a killed run goes on
to the same weights."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from writesae.artifacts import load_sae
from writesae.corpus.facts import NAMES, THINGS, draw_facts, vocabulary
from writesae.hosts import EMBEDDED, Host, load
from writesae.recurrence import Stream, replay_reference
from writesae.sae import TopK
from writesae.store import open_store
from writesae.training import train
from writesae.types import Site

RECIPES = Path(__file__).parents[2] / "recipes"
BATCH, TIME, HEADS, D_K, D_V = 2, 71, 3, 5, 7


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe's files, which are no package."""
    monkeypatch.syspath_prepend(str(RECIPES / "memory"))


@pytest.mark.parametrize("erase", ["nothing", "along the key", "its own way"])
@pytest.mark.parametrize("decays", [1, D_K])
def test_the_recurrence_equals_the_reference(recipe: None, erase: str, decays: int) -> None:
    """In value and in every gradient."""
    generator = torch.Generator().manual_seed(0)

    def drawn(width: int, scale: float = 1.0) -> Tensor:
        noise = torch.randn(BATCH, TIME, HEADS, width, generator=generator, dtype=torch.float64)
        return (scale * noise).requires_grad_()

    inputs = [drawn(D_K), drawn(D_K), drawn(D_V), drawn(decays)]
    inputs += {"nothing": [], "along the key": [drawn(D_K), drawn(1)], "its own way": [drawn(D_K), drawn(D_K)]}[erase]
    query, key, value, decay, *rest = inputs
    stream = Stream(query, key, value, -0.3 * decay.abs())
    if erase != "nothing":
        gate, write = (rest[1].sigmoid(), None) if erase == "along the key" else (None, 0.2 * rest[1])
        stream = Stream(query, key, value, -0.3 * decay.abs(), 0.2 * rest[0], gate, write)
    found, expected = import_module("parallel").outputs(stream), replay_reference(stream).outputs
    torch.testing.assert_close(found, expected)
    weight = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    gradients = [
        torch.autograd.grad((output * weight).sum(), inputs, retain_graph=True) for output in (found, expected)
    ]
    for own, other in zip(*gradients, strict=True):
        torch.testing.assert_close(own, other)


def test_training_runs_the_model_itself(recipe: None) -> None:
    """The same hidden states as a plain run of the host, for its own passages."""
    host = load("memory-gdn")
    tokens = torch.from_numpy(draw_facts(vocabulary(host.tokenizer), 3, 5).tokens)
    with torch.no_grad(), import_module("parallel").training(host.model):
        torch.testing.assert_close(
            host.model(tokens, use_cache=False).logits, host.logits(tokens), rtol=1e-4, atol=1e-3
        )


def test_the_tokenizer_is_tiny_gdn_s_with_whole_names_and_things(recipe: None, host: Host) -> None:
    extended = import_module("tokens").open_tokenizer()
    own, more = host.tokenizer.get_vocab(), extended.get_vocab()
    assert own.items() < more.items()
    assert sorted(more.values()) == list(range(len(more)))
    assert all(len(extended.encode(" " + word)) == 1 for word in (*NAMES, *THINGS))
    other = "Call me Ishmael. Some years ago, never mind how long precisely, I thought I would sail about a little."
    assert extended.decode(extended.encode(other)) == other
    shipped = (EMBEDDED["memory-gdn"] / "tokenizer.json").read_text()
    assert json.loads(shipped) == json.loads(import_module("tokens").extended_tokenizer())


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    def arguments(out: str) -> list[Any]:
        small = ["--batch", "16", "--steps", "40", "--checkpoint-every", "7"]
        return [sys.executable, RECIPES / "memory" / "teach.py", "--family", "gdn", "--out", tmp_path / out, *small]

    subprocess.run(arguments("whole"), check=True, stdout=subprocess.DEVNULL)
    process = subprocess.Popen(arguments("cut"), stdout=subprocess.DEVNULL)
    while not (tmp_path / "cut" / "checkpoint.pt").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "cut" / "host").exists()
    subprocess.run(arguments("cut"), check=True, stdout=subprocess.DEVNULL)
    weights = [(tmp_path / out / "host" / "model.safetensors").read_bytes() for out in ("whole", "cut")]
    assert weights[0] == weights[1]
    assert load(tmp_path / "whole" / "host").vocabulary == load("memory-gdn").vocabulary


def test_dictionaries_of_a_memory_host(recipe: None, tmp_path: Path) -> None:
    """Small: what is captured and trained is held out of every other draw, and the choice of `k` is recorded."""
    made = import_module("learn")
    options = made.Options(
        "memory-gdn", tmp_path, targets=("write-delta",), passages=20, held_out=5, features=67, write_ks=(1, 2), steps=3
    )
    made.main(options)
    made.main(options)  # finished runs are read
    sae = load_sae(tmp_path / "L1.H1-write-delta")
    assert sae.record is not None
    assert (sae.host, str(sae.site), sae.target) == ("memory-gdn", "L1.H1", "write-delta")
    assert sae.record.host_revision == load("memory-gdn").revision
    table = json.loads((tmp_path / "L1.H1-write-delta.json").read_text())
    assert sae.record.metrics["k chosen by agreement of seeds"] == table
    assert [row["k"] for row in table] == [1, 2]
    assert sae.config.sparsity == TopK(max(table, key=lambda row: row["seeds agree"])["k"])
    assert sae.record.corpus == "facts, 8 of 11 names and 33 things a passage, seed 2000003 0, train"
    store = open_store(tmp_path / "train.zarr")
    configs = [made.settings(options, Site(1, 1), "write-delta", 1, seed) for seed in (0, 1)]
    k = sae.config.sparsity.k
    assert 0 < int(made.firings(store, configs[0], sae).sum()) <= k * store.sequences * store.length
    runs = [train(store, one, tmp_path / "runs" / f"L1.H1-write-delta-k1-seed{one.seed}") for one in configs]
    assert made.agreement(store, runs[0], runs[0]) == pytest.approx(1)
    assert made.agreement(store, *runs) < 0.2  # hardly trained
