"""Every causal evaluation against the slow protocol: a cache deep-copied, its state edited, the model continued.

On hosts of six families. Once in float64, where both must agree but for the last digits, and once as hosts are used,
in float32, where the two ways round the logits differently.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import cast

import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from random_hosts import host_parameter, some_tokens, tiny_host
from references import delta_values_reference
from slow_protocol import cache_copy_logits, edit_of, transition_of
from writesae.causal.precision import in_float64, widened
from writesae.evals import fidelity, logit_shift, passage_loss, readers, selectivity
from writesae.evals.common.conditions import ADDED
from writesae.evals.common.directions import directions
from writesae.evals.logit_shift import LogitShiftConfig
from writesae.evals.passage_loss import PassageLossConfig
from writesae.evals.readers import ReadersConfig
from writesae.evals.selectivity import SelectivityConfig
from writesae.evals.selectivity.measure import overlaps
from writesae.hosts import Host, KernelCall, KernelResult, Tap
from writesae.hosts.caches import new_cache, read_state, run_cached, write_state
from writesae.hosts.fork import native_run
from writesae.recurrence import Stream, replay_reference
from writesae.sae import SAE, SAEConfig, TopK
from writesae.types import NativeWrite, Site, Target, Timing

WIDE = ("qwen3_next", "kimi_linear", "falcon_h1", "fla_delta_net", "fla_rwkv7")
"""Hosts that are run in float64."""
NARROW = ("qwen3_next", "kimi_linear", "mamba2", "fla_gla", "rwkv7_hf")
"""Hosts that are run in float32."""
TEXT = some_tokens(rows=2, time=13)


@dataclass(frozen=True)
class World:
    """A host at one precision."""

    host: Host
    number: int
    """Which of the hosts."""
    relative: float
    """How far a fast change may be from the slow one, as a share of it."""
    rounding: float
    """And beside that, in logits or nats: what the two ways may round differently in one run."""

    def agree(self, fast: float, slow: float, size: float | None = None) -> bool:
        """Whether two changes are the same."""
        return abs(fast - slow) <= self.relative * abs(slow if size is None else size) + self.rounding

    def turn(self, *choices: str) -> str:
        """One of some choices, in turn over the hosts, so that all are tried and no test takes long."""
        return choices[self.number % len(choices)]


wide_host = cache(lambda name: widened(tiny_host(name)))


@pytest.fixture(params=[host_parameter(name) for name in WIDE])
def wide(request: pytest.FixtureRequest) -> Iterator[World]:
    found = World(wide_host(request.param), WIDE.index(request.param), 1e-7, 1e-12)
    with in_float64():
        yield found


@pytest.fixture(params=[host_parameter(name) for name in NARROW])
def narrow(request: pytest.FixtureRequest) -> World:
    return World(tiny_host(request.param), NARROW.index(request.param), 1e-4, 1e-5)


def dictionary(host: Host, site: Site, target: Target = "write-delta") -> SAE:
    layer = host.layers[site.layer]
    target = "write-value" if layer.family == "rwkv7" else target  # all that can be evaluated there
    sae = SAE(SAEConfig(layer.d_k, layer.d_v, 11, sparsity=TopK(3), target=target), torch.Generator().manual_seed(7))
    sae.v_enc.data.mul_(5)  # large coefficients, so that effects stand well above rounding
    return sae.to(host.dtype)


def sites(host: Host) -> tuple[Site, Site]:
    """A head of the first recurrent layer, and one of the second."""
    first, second = list(host.layers.values())[:2]
    return Site(first.index, first.heads - 1), Site(second.index, 1)


def head_stream(host: Host, tokens: Tensor, site: Site) -> Stream:
    return host.record(tokens, [site.layer])[site.layer].heads(site.head)


def delta_values(stream: Stream) -> Tensor:
    """Value sides `[B, T, 1, V]` of the delta writes, or of the native ones where a token adds two matrices."""
    return delta_values_reference(stream) if stream.rank_one else stream.value


def form_of(host: Host, site: Site, form: str) -> NativeWrite:
    """A form of the native write, or the one that the head has."""
    return cast(NativeWrite, form if head_stream(host, TEXT, site).rank_one else "value")


def matrices(host: Host, sae: SAE, site: Site, records: pd.DataFrame, form: NativeWrite) -> Tensor:
    """Atom, random and orthogonal matrix of each record, `[R, 3, K, V]`; `directions` has tests of its own."""
    edits = directions(native_run(host, TEXT, site.layer), sae, site, records, ADDED, [form], 0)
    return torch.einsum("rcm,rmk,rmv->rckv", edits.weight, edits.key, edits.value)


def check_selectivity(world: World) -> None:
    host, (site, _) = world.host, sites(world.host)
    timing = cast(Timing, world.turn("after_token", "at_token"))
    sae, form = dictionary(host, site), form_of(host, site, world.turn("value", "delta"))
    config = SelectivityConfig(atoms=2, firings=2, top=7, timings=(timing,), native_writes=(form,))
    records = selectivity(host, sae, TEXT, site=site, config=config).records
    edits = matrices(host, sae, site, records, form)
    for row, record in enumerate(records.to_dict("records")):
        given = (host, TEXT[record["passage"]], site, record["position"], list(edits[row]), timing)
        native, patched = cache_copy_logits(*given)
        change = torch.stack([logits[0] - native[0] for logits in patched])
        moved = (change - change.mean(-1, keepdim=True)).abs().sort(-1, descending=True).values
        clear = bool((moved[:, 6] - moved[:, 7] > 4 * world.rounding).all())  # else rounding can swap two tokens
        slow = overlaps(change.unsqueeze(0), 7)[0]
        for name, overlap in zip(ADDED[1:], slow.tolist(), strict=True):
            assert record[f"overlap_{name}"] == pytest.approx(overlap, abs=1e-9 if clear else 1 / 7 + 1e-9)


def check_readers(world: World) -> None:
    host, (site, _) = world.host, sites(world.host)
    timing = cast(Timing, world.turn("after_token", "at_token"))
    sae, form = dictionary(host, site), form_of(host, site, world.turn("delta", "value"))
    config = ReadersConfig(atoms=2, firings=2, timings=(timing,), native_writes=(form,))
    records = readers(host, sae, TEXT, site=site, config=config).records
    order = ["passage", "position", "feature"]
    places = records.drop_duplicates(order).sort_values(order)
    edits = matrices(host, sae, site, places, form)
    for row, place in enumerate(places.to_dict("records")):
        native, atom, random = (
            later(host, TEXT[place["passage"]], site, place["position"], edit, timing)
            for edit in (torch.zeros_like(edits[row, 0]), *edits[row, :2])
        )
        own = records[(records.passage == place["passage"]) & (records.position == place["position"])]
        for record in own[own.feature == place["feature"]].to_dict("records"):
            reader = Site.parse(record["reader"])
            for name, outputs in (("atom", atom), ("random", random)):
                change = outputs[reader.layer][reader.head] - native[reader.layer][reader.head]
                assert world.agree(record[name], float(change.norm()))


def later(host: Host, tokens: Tensor, site: Site, position: int, edit: Tensor, timing: Timing) -> dict[int, Tensor]:
    """Outputs `[H, V]` of all later layers at the first token that reads `edit`, added to the state after a token."""
    cache, found = new_cache(host), dict[int, Tensor]()
    scored = position if timing == "at_token" else position + 1
    if timing == "at_token":  # the token's own transition turns what is added before it into the edit
        edit = torch.linalg.solve(transition_of(host, tokens, site, position), edit.double())

    def after(call: KernelCall, result: KernelResult) -> KernelResult:
        found[call.layer] = result.output[0, 0]
        return result

    with host.tap():
        run_cached(host, tokens[None, :scored], cache, 0, keep=1)
    add(host, cache, site, edit)
    with host.tap(Tap(after=after)):
        run_cached(host, tokens[None, scored : scored + 1], cache, scored)
    return {layer: output for layer, output in found.items() if layer > site.layer}


def add(host: Host, cache: object, site: Site, edit: Tensor) -> None:
    """Add a matrix to a head's state in a cache of one passage."""
    state = read_state(host, cache, site.layer).clone()  # type: ignore[arg-type]
    state[0, site.head] += edit.to(state)
    write_state(host, cache, site.layer, state)  # type: ignore[arg-type]


def check_logit_shift(world: World) -> None:
    host, (site, _) = world.host, sites(world.host)
    sae = dictionary(host, site)
    config = LogitShiftConfig(
        atoms=2, places=2, epsilons=(1.0,), horizons=(1, 3), ranks=(0, 9), precision="float32"
    )  # as the host is here
    records = logit_shift(host, sae, TEXT, site=site, config=config).records
    stream = head_stream(host, TEXT[:2], site)
    size = (stream.key.norm(dim=-1) * delta_values(stream).norm(dim=-1)).median()
    for _, cells in records.groupby(["passage", "feature", "timing"]):
        passage, position, feature = (int(cells[name].iloc[0]) for name in ("passage", "position", "feature"))
        unit, timing = sae.atom_matrices()[feature].detach(), cast(Timing, cells.timing.iloc[0])
        given = (host, TEXT[passage], site, position, [size * unit / unit.norm()], timing)
        native, patched = cache_copy_logits(*given, horizon=3)
        for record in cells.to_dict("records"):
            at = (record["horizon"] - 1, record["token"])
            change = patched[0][record["horizon"] - 1] - native[record["horizon"] - 1]
            slow = float(patched[0][at] - native[at])
            assert world.agree(record["measured"], slow, size=float(change.abs().max()))


def check_fidelity_in_two_layers(world: World) -> None:
    host, two = world.host, sites(world.host)
    target = cast(Target, world.turn("state", "write-delta", "write-value"))
    saes = {site: dictionary(host, site, target) for site in two}
    records = fidelity(host, saes, TEXT, prefix=0.6, scopes="head").records
    start, tables = 8, dict(list(records.groupby("scope")))
    hats = {site: dense_reconstruction(host, sae, site, TEXT[:, :start]) for site, sae in saes.items()}
    natives = [token_by_token(host, tokens, start, {}) for tokens in TEXT]
    for scope, replaced in {"all": list(two), str(two[0]): [two[0]], str(two[1]): [two[1]]}.items():
        for record in tables[scope].to_dict("records"):
            row = record["passage"]
            native = natives[row]
            for name, factor in (("reconstruction", 1.0), ("zero", 0.0)):
                slow = token_by_token(host, TEXT[row], start, {site: factor * hats[site][row] for site in replaced})
                assert world.agree(record[f"nll_{name}"] - record["nll_native"], slow - native)
                assert world.agree(record["nll_native"], native)


def dense_reconstruction(host: Host, sae: SAE, site: Site, tokens: Tensor) -> Tensor:
    """Reconstructed states after passages `[B, t]`, `[B, K, V]`: dense matrices encoded, writes replayed."""
    stream = head_stream(host, tokens, site)
    states = replay_reference(stream).states[:, :, 0]
    if sae.config.target == "state":
        return sae.decode(sae.encode(states[:, -1]))
    value = stream.value if sae.config.target == "write-value" else delta_values_reference(stream)
    writes = torch.einsum("btk,btv->btkv", stream.key[:, :, 0], value[:, :, 0])
    hats, state = sae.decode(sae.encode(writes)), torch.zeros_like(states[:, 0])
    for t in range(tokens.shape[1]):
        transition = torch.diag_embed(stream.log_decay[:, t, 0].exp().expand(-1, stream.key.shape[-1]))
        if sae.config.target == "write-value" and stream.erase is not None:
            transition = transition - torch.einsum("bk,bl->bkl", *(x[:, t, 0] for x in stream.erase))
        state = transition @ state + hats[:, t]
    return state


def token_by_token(host: Host, tokens: Tensor, start: int, put: dict[Site, Tensor]) -> float:
    """Loss of tokens `start + 1` on, one at a time, with the states of these heads replaced before token `start`."""
    cache = new_cache(host)
    with host.tap():
        run_cached(host, tokens[None, :start], cache, 0, keep=1)
    for site, matrix in put.items():
        state = read_state(host, cache, site.layer)
        add(host, cache, site, matrix - state[0, site.head])
    total = 0.0
    for t in range(start, len(tokens) - 1):
        with host.tap():
            logits = run_cached(host, tokens[None, t : t + 1], cache, t)[0, 0]
        total += float(cross_entropy(logits.double(), tokens[t + 1]))
    return total


def check_passage_loss(world: World) -> None:
    host, (site, _) = world.host, sites(world.host)
    sae, text, form = dictionary(host, site), TEXT, form_of(host, site, world.turn("delta", "value"))
    timing = cast(Timing, world.turn("after_token", "at_token", "at_token"))
    stream = head_stream(host, text, site)
    writes = torch.einsum("btk,btv->btkv", stream.key[:, :, 0], delta_values(stream)[:, :, 0])
    dense = sae.encode(writes).dense(11)
    top = dense.max(-1)
    early = set(top.indices[:, 0].tolist())  # no cache has a state before the first token that could be edited
    chosen = sorted(set(top.indices.flatten().tolist()) - early)[:4]
    config = PassageLossConfig((form,), timings=(timing,), features=tuple(chosen), amplitudes=("coefficient",))
    result = passage_loss(host, sae, text, site=site, config=config)
    several = 0
    for record in result.records.to_dict("records"):
        row, places = record["passage"], {"native": {}, "delete": dict[int, Tensor](), "atom": {}}
        for t in range(text.shape[1]):
            feature = int(top.indices[row, t])
            if feature in chosen and top.values[row, t] > 0:
                places["atom"][t] = top.values[row, t] * sae.atom_matrices()[feature].detach()
                places["delete"][t] = torch.zeros_like(places["atom"][t])
        assert record["firings"] == len(places["delete"])
        found = result.more["firings"][result.more["firings"].passage == row].position.tolist()
        assert found == list(places["delete"])
        several += len(found) > 1
        slow = {name: rewritten(host, text[row], site, put, timing, form) for name, put in places.items()}
        for name in ("delete", "atom"):
            assert world.agree(record[f"nll_{name}"] - record["nll_native"], slow[name] - slow["native"])
        assert world.agree(record["nll_native"], slow["native"])
    assert several


def rewritten(
    host: Host, tokens: Tensor, site: Site, put: dict[int, Tensor], timing: Timing, form: NativeWrite
) -> float:
    """Loss of a whole passage, one token at a time: at these tokens the head writes these matrices, in the place of
    what it would write after all that was changed before."""
    cache, total = new_cache(host), 0.0
    stream = host.record(tokens[None], [site.layer])[site.layer]
    for t in range(len(tokens) - 1):
        if t in put:
            state, here = read_state(host, cache, site.layer)[0, site.head], stream.map(lambda x, t=t: x[:, : t + 1])  # type: ignore[misc]
            edit = edit_of(here, state, site.head, put[t], "at_token", form)
        if t in put and timing == "at_token":
            add(host, cache, site, edit)
        with host.tap():
            logits = run_cached(host, tokens[None, t : t + 1], cache, t)[0, 0]
        if t in put and timing == "after_token":  # what the token's own transition makes of the same edit
            add(host, cache, site, transition_of(host, tokens, site, t) @ edit.double())
        total += float(cross_entropy(logits.double(), tokens[t + 1]))
    return total


CHECKS = (check_selectivity, check_readers, check_logit_shift, check_fidelity_in_two_layers, check_passage_loss)


@pytest.mark.parametrize("check", CHECKS)
def test_in_float64(wide: World, check: Callable[[World], None]) -> None:
    check(wide)


@pytest.mark.parametrize("check", CHECKS)
def test_in_float32(narrow: World, check: Callable[[World], None]) -> None:
    check(narrow)
