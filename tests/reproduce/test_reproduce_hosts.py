"""Hosts that a reproduction was not written for: the published preset on a Qwen3.5 of the Hub's layout, one that has
learnt facts, and Mamba-1, of which only the audit can be made."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch
from rich.console import Console
from transformers import AutoTokenizer

from tiny_models import AUDITED_MODELS, TINY_MODELS
from writesae.errors import HostError
from writesae.hosts import EMBEDDED
from writesae.reproduce import ReproduceConfig
from writesae.reproduce.rows import Row
from writesae.reproduce.run import asked_of, reproduce
from writesae.reproduce.sizes import SIZES
from writesae.store import open_store

SMALL = replace(
    SIZES["published"], tokens=1_500, length=48, features=24, k=3, train_tokens=2_048, batch=256, passages=3, seeds=1,
    table_seeds=1, layers=2, ks=(2,),
    options={"sign": {"passages": 6}, "substitution": {"firings": 10}, "substitution-layers": {"firings": 10}},
)  # fmt: skip


def rows_of(config: ReproduceConfig, out: Path) -> list[Row]:
    return reproduce(config, out, Console(quiet=True))


def a_host(kind: str, folder: Path) -> str:
    """A random host, saved as the Hub has it, with the tokenizer of an embedded one."""
    spec = {**TINY_MODELS, **AUDITED_MODELS}[kind]
    module = import_module(spec.module)
    torch.manual_seed(0)
    model = getattr(module, spec.model)(getattr(module, spec.config)(**{**spec.settings, "vocab_size": 4096}))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(EMBEDDED["tiny-gdn"]).save_pretrained(folder)
    return str(folder)


def test_the_published_preset_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its own heads, with its own recipe, on text that is named."""
    sites = ("L1.H1", "L0.H1")
    monkeypatch.setitem(SIZES, "published", replace(SMALL, sites=sites))
    host = a_host("qwen3_5", tmp_path / "qwen")
    claims = ("substitution.pooled", "firing_order", "k_sweep", "edit.sign")
    config = ReproduceConfig((host,), claims, preset="published", corpus="sample", workers=1, features=16)
    rows = rows_of(config, tmp_path / "out")
    place = next(path for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert list(open_store(place / "streams.zarr").layers) == [0, 1]
    assert {one.claim for one in rows if one.value is not None} == set(claims)
    first = [one.what.rpartition(", ")[2] for one in rows if one.claim == "firing_order"]
    assert set(first) == set(sites)
    assert (place / "train" / "states-0" / "run.json").read_text().count('"lr": 0.0003') == 1  # Table 8, not ours


def test_a_host_that_has_learnt_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIZES, "quick", replace(SMALL, sites=(), recipe=SIZES["quick"].recipe))
    config = ReproduceConfig(("memory-mamba2",), ("hosts.rwkv7", "hosts.mamba2", "known_truth"), quick=True, workers=1)
    monkeypatch.setattr("writesae.reproduce.run.asked_of", lambda config: {"memory-mamba2": config})
    rows = {one.claim: one for one in reversed(rows_of(config, tmp_path / "out"))}
    assert rows["hosts.mamba2"].published == 0.8808
    assert rows["hosts.mamba2"].value is not None
    assert (rows["hosts.rwkv7"].value, rows["hosts.rwkv7"].differs) == (None, "is about hosts of the family rwkv7")
    assert "for memory-gdn" in rows["known_truth"].differs


def test_mamba1_is_audited_and_everything_else_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIZES, "quick", replace(SMALL, sites=(), corpus="sample"))
    host = a_host("mamba1", tmp_path / "mamba")
    rows = rows_of(ReproduceConfig((host,), ("spectral_audit", "population"), quick=True, workers=1), tmp_path / "out")
    audit, other = ([one for one in rows if one.claim == name] for name in ("spectral_audit", "population"))
    assert len(audit) == 3
    assert all(one.value is not None for one in audit)
    assert other[0].value is None
    assert other[0].differs


def test_of_all_hosts_one_that_cannot_be_loaded_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> None:
        raise HostError(f"{name} needs the package x")

    monkeypatch.setattr("writesae.reproduce.run.load", load)
    rows = rows_of(ReproduceConfig(("all",), ("population",), quick=True, workers=1), tmp_path / "out")
    assert [one.host for one in rows] == list(EMBEDDED)
    assert all(one.differs == f"{one.host} needs the package x" and one.value is None for one in rows)
    with pytest.raises(HostError, match="tiny-gdn needs"):
        rows_of(ReproduceConfig(("tiny-gdn",), ("population",), quick=True), tmp_path / "other")


def test_all_hosts_are_every_embedded_one() -> None:
    asked = asked_of(ReproduceConfig(("all",)))
    assert list(asked) == list(EMBEDDED)
    assert {"tiny-gdn", "tiny-mamba2", "memory-kda", "memory-rwkv7"} <= set(asked)
    beside = asked_of(ReproduceConfig(("tiny-gdn",)))
    assert list(beside) == ["tiny-gdn", "memory-gdn"]  # a claim about one host is measured there
    assert beside["memory-gdn"].claims == ("known_truth",)
