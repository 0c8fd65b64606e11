"""Mamba-1: read right, audited as one site a layer, and refused for everything else."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tiny_models import AUDITED_MODELS, build_tiny
from writesae.attribution import attribute
from writesae.causal.divergence import kl_divergence
from writesae.errors import HostError
from writesae.evals import spectrum
from writesae.hosts import Host, Tap, load
from writesae.hosts.caches import new_cache, read_state, run_cached, write_state
from writesae.hosts.fork import native_run
from writesae.hosts.selfcheck import TOLERANCE, measure_replay, relative
from writesae.store import capture


@pytest.fixture(params=AUDITED_MODELS, scope="module")
def host(request: pytest.FixtureRequest) -> Host:
    return load(build_tiny(request.param))


def tokens(time: int = 17) -> Tensor:
    return torch.randint(3, 101, (2, time), generator=torch.Generator().manual_seed(1))


def test_replay_reproduces_states_and_outputs(host: Host) -> None:
    """The continuation of several tokens is run token by token: the model's own would forget its state."""
    for errors in measure_replay(host, tokens(), (11, 1, 1, 4)).values():
        assert max(errors.state, errors.output) <= TOLERANCE


def test_a_prompt_and_its_continuation_agree(host: Host) -> None:
    whole = host.logits(tokens())
    live = new_cache(host)
    with host.tap():
        parts = [run_cached(host, tokens()[:, a:b], live, a) for a, b in ((0, 5), (5, 13), (13, 17))]
    assert relative(torch.cat(parts, 1), whole) <= TOLERANCE


def test_a_recording_run_has_the_same_bits(host: Host) -> None:
    assert torch.equal(host.logits(tokens(), Tap(after=lambda call, result: result)), host.logits(tokens()))


@torch.no_grad()
def deleted(host: Host, layer: int, text: Tensor, position: int, write: Tensor) -> float:
    """KL of deleting a layer's whole write in a copy of the cache, with nothing of a fork: `text` `[T]`."""
    live = new_cache(host)
    with host.tap():
        run_cached(host, text[None, : position + 1], live, 0)
        other = copy.deepcopy(live)
        write_state(host, other, layer, read_state(host, live, layer) - write)
        after = text[None, position + 1 : position + 2]
        native, patched = (run_cached(host, after, c, position + 1)[0] for c in (live, other))
    return float(kl_divergence(native, patched)[0])


def test_the_audit_is_that_of_the_model_s_own_states(host: Host) -> None:
    """Singular values, share and effect, each from the cache of the model."""
    result = spectrum(host, tokens(), writes=5, seed=4)
    inner, size = (int(getattr(host.config, name)) for name in ("intermediate_size", "state_size"))
    assert [str(site) for site in host.sites] == ["L0.H0", "L1.H0"]
    assert len(result.records) == 2
    found = result.more["writes"].to_dict("records")
    assert len(found) == 10
    effects: list[float] = []
    for row in found:
        layer, text, position = row["layer"], tokens()[row["passage"]], row["position"]
        stream = native_run(host, tokens(), layer).streams[layer].map(lambda x, at=row["passage"]: x[at, :, None])  # type: ignore[misc]
        live = new_cache(host)
        with torch.no_grad(), host.tap():
            run_cached(host, text[None, : position + 1], live, 0)
        state = read_state(host, live, layer)[0, :, :, 0]
        write = torch.einsum("hk,hv->hkv", stream.key[position, 0], stream.value[position, 0])
        assert state.shape == (inner, size)
        assert row["singular_values"] == pytest.approx(torch.linalg.svdvals(state).tolist(), rel=1e-4)
        assert row["write_share"] == pytest.approx(float(write.norm() / state.norm()), rel=1e-4)
        slow = deleted(host, layer, text, position, write[None])
        assert row["delete_kl_after_token"] == pytest.approx(slow, rel=1e-2, abs=1e-8)
        effects.append(slow)
    assert sorted(effects)[2] > 1e-6


REFUSED: dict[str, Callable[[Host, Path], object]] = {
    "capture": lambda host, to: capture(host, tokens(), "all", to),
    "attribute": lambda host, to: attribute(host, [], "some text"),
    "record": lambda host, to: host.record(tokens(), [0]),
    "a site": lambda host, to: host.check_site(host.sites[0]),
}


@pytest.mark.parametrize("what", REFUSED)
def test_everything_else_is_refused_with_the_reason(host: Host, what: str, tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"can be audited only .* decays at a rate of its own"):
        REFUSED[what](host, tmp_path / "store")
    assert list(tmp_path.iterdir()) == []
