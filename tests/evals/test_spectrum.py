"""The audit against the dense states, and against hand-worked values."""

import warnings
from dataclasses import replace
from importlib import import_module

import numpy as np
import pandas as pd
import pytest
import torch

from random_hosts import host_parameter, some_tokens, tiny_host
from references import delta_values_reference
from slow_protocol import cache_copy_logits
from writesae.causal import budget, runs
from writesae.causal.divergence import kl_divergence
from writesae.errors import InputError
from writesae.evals import spectrum
from writesae.evals.spectrum import SpectrumConfig
from writesae.evals.spectrum.summary import heads_of, summarise
from writesae.hosts import Host
from writesae.hosts.fork import NativeRun, native_run
from writesae.recurrence import replay_reference
from writesae.types import Site

measuring = import_module("writesae.evals.spectrum.measure")


def test_against_dense_states(host: Host, passages: torch.Tensor) -> None:
    result = spectrum(host, passages[:2], writes=5, seed=4)
    heads, whole = result.records, result.more["writes"]
    assert [Site(a, b) for a, b in zip(heads["layer"], heads["head"], strict=True)] == host.sites
    stream = host.record(passages[:2], [6])[6]
    states, update = replay_reference(stream).states, delta_values_reference(stream)
    places = whole[(whole["layer"] == 6) & (whole["head"] == 3)]
    passage, position = torch.tensor(places.passage.to_numpy()), torch.tensor(places.position.to_numpy())
    state = states[passage, position]
    write = torch.einsum("rhk,rhv->rhkv", stream.key[passage, position], update[passage, position])
    share = (write.flatten(2).norm(dim=2) / state.flatten(2).norm(dim=2)).median(0).values
    largest = torch.linalg.matrix_norm(state, ord=2)
    rank = (torch.linalg.matrix_norm(state).square() / largest.square()).median(0).values
    for h in heads[heads["layer"] == 6].to_dict("records"):
        assert h["write_share"] == pytest.approx(share[h["head"]].item(), rel=1e-4)
        assert h["stable_rank"] == pytest.approx(rank[h["head"]].item(), rel=1e-4)
        assert h["decay"] == pytest.approx(stream.log_decay[:, :, h["head"]].exp().mean().item(), rel=1e-5)
        assert h["delete_kl_after_token"] >= 0
        assert h["native_write"] == "delta"
    for i, w in enumerate(places.to_dict("records")):
        assert w["singular_values"] == pytest.approx(np.linalg.svd(state[i, 3].numpy(), compute_uv=False), 1e-3, 1e-6)
        assert w["state_norm"] == pytest.approx(state[i, 3].norm().item(), rel=1e-5)
        assert w["token"] == passages[w["passage"], w["position"]]


@pytest.mark.parametrize("name", ["qwen3_next", "as_rwkv7", host_parameter("fla_rwkv7"), host_parameter("rwkv7_hf")])
def test_what_was_deleted_is_named_and_gone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """RWKV-7 adds two rank-1 matrices a token: its native write is what is deleted there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        host, tokens = tiny_host("qwen3_next" if name == "as_rwkv7" else name), some_tokens()
    if name == "as_rwkv7":  # the same recurrence, seen as one that erases along a direction of its own
        runs = [(0, with_erase_direction(native_run(host, tokens, layer))) for layer in host.layers]
        monkeypatch.setattr(measuring, "native_runs", lambda *_: [runs.pop(0)])
    result = spectrum(host, tokens, writes=2, timings=("after_token", "at_token"))
    form = "delta" if name == "qwen3_next" else "value"
    assert result.summary.native_write == form
    assert ("native write b k v^T" in result.finding) == (form == "value")
    layer, writes = max(host.layers), result.more["writes"]
    stream = host.record(tokens, [layer])[layer]
    values = stream.value if form == "value" else delta_values_reference(stream)
    for w in writes[(writes["layer"] == layer) & (writes["head"] == 1)].to_dict("records"):
        at = (w["passage"], w["position"], 1)
        write = torch.outer(stream.key[at], values[at])
        for timing in result.config.timings:
            native, patched = cache_copy_logits(host, tokens[at[0]], Site(layer, 1), at[1], [-write], timing)
            slow = float(kl_divergence(native, patched[0])[0])
            assert w[f"delete_kl_{timing}"] == pytest.approx(slow, rel=1e-2, abs=1e-8)


def with_erase_direction(run: NativeRun) -> NativeRun:
    """A run whose streams name the direction that they erase along, as RWKV-7's do."""
    streams = {}
    for layer, stream in run.streams.items():
        along, _ = stream.erase or (None, None)
        streams[layer] = replace(stream, erase_gate=None, erase_write=along)
    return replace(run, streams=streams)


def test_native_runs_are_bounded(host: Host, passages: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few passages at a time, and nothing of the result changes but its rounding."""
    whole, sizes = spectrum(host, passages, writes=6), list[int]()

    def watched(of: Host, tokens: torch.Tensor, layer: int) -> NativeRun:
        sizes.append(len(tokens))
        return native_run(of, tokens, layer)

    monkeypatch.setattr(budget, "BUDGET", 1e-6)
    monkeypatch.setattr(runs, "native_run", watched)
    few = spectrum(host, passages, writes=6)
    assert max(sizes) == 1
    for table in ("records", "writes"):
        rounding = ["singular_values", "above_after_token" if table == "records" else "floor_after_token"]
        one, other = (r.tables[table].drop(columns=rounding) for r in (whole, few))
        pd.testing.assert_frame_equal(one, other, rtol=1e-2, atol=1e-7)


def test_by_hand() -> None:
    table = pd.DataFrame({"layer": 3, "head": 1, "write_share": [0.2, 0.4, 0.9], "stable_rank": [1.0, 2.0, 3.0]})
    table = table.assign(delete_kl_at_token=[0.5, 0.1, 0.3], state_norm=[5.0, 10.0, 1.0], decay=0.7)
    table = table.assign(floor_at_token=[0.01, 0.001, 0.04])
    table["singular_values"] = pd.Series([[4.0, 3.0], [10.0, 0.0], [0.6, 0.8]])
    records = heads_of(table.assign(native_write="delta"))
    (head,) = records.to_dict("records")
    assert (head["layer"], head["head"], head["decay"], head["write_share"], head["stable_rank"]) == (3, 1, 0.7, 0.4, 2)
    assert head["delete_kl_at_token"] == 0.3
    assert head["above_at_token"] == pytest.approx(1 / 3)  # 0.1 is not ten times the median floor, 0.3 not its own
    assert head["singular_values"] == pytest.approx((0.8, 0.6))  # medians of 0.8, 1, 0.6 and of 0.6, 0, 0.8
    s = summarise({"records": records, "writes": table}, SpectrumConfig(timings=("at_token",)))
    assert (s.default_site, s.delete_kl, s.heads, s.remembering) == ("L3.H1", 0.3, 1, 1)
    assert s.singular_share == pytest.approx(0.64)


def test_the_default_head_remembers() -> None:
    heads = pd.DataFrame({"layer": [1, 2, 2], "head": [0, 0, 1], "decay": 0.9, "stable_rank": 1.0})
    heads = heads.assign(write_share=[0.99, 0.3, 0.3], delete_kl_after_token=[9.0, 0.5, 0.7], native_write="delta")
    heads = heads.assign(above_after_token=[0.9, 0.7, 0.2])
    writes = pd.DataFrame({"singular_values": [[1.0]], "state_norm": [1.0]})
    for rows, best, remembering, above in ((heads, "L2.H1", 2, 0.2), (heads[:1], "L1.H0", 0, 0.9)):
        s = summarise({"records": rows, "writes": writes}, SpectrumConfig())
        assert (s.default_site, s.remembering, s.above) == (best, remembering, above)


def test_heads_that_move_no_more_than_rounding_are_no_finding(host: Host, passages: torch.Tensor) -> None:
    result = spectrum(host, passages[:2], writes=2)
    assert "too small to decide" not in result.finding
    quiet = result.records.assign(above_after_token=0.25)
    small = replace(result, records=quiet, summary=summarise({**result.tables, "records": quiet}, result.config))
    assert "too small to decide" in small.finding


def test_too_short(host: Host, passages: torch.Tensor) -> None:
    with pytest.raises(InputError, match="at least 4 tokens"):
        spectrum(host, passages[:, :3])
