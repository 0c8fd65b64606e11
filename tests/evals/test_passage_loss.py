"""Deleted and replaced classes of writes, over whole passages: against caches edited token by token."""

import math
from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy

from writesae.errors import InputError
from writesae.evals import passage_loss
from writesae.evals.common.firings import firings_by_form
from writesae.evals.passage_loss import PassageLossConfig
from writesae.evals.passage_loss.summary import summarise
from writesae.hosts import Host, KernelCall, KernelResult, Tap
from writesae.recurrence import delta_values
from writesae.sae import SAE, SAEConfig, TopK
from writesae.types import NativeWrite, Site

SITE = Site(5, 2)
FORMS: tuple[NativeWrite, ...] = ("delta", "value")


def dictionary() -> SAE:
    return SAE(SAEConfig(32, 32, 61, sparsity=TopK(3), target="write-delta"), torch.Generator().manual_seed(5))


def loss(host: Host, tokens: torch.Tensor, head: Site, outputs: torch.Tensor | None) -> list[float]:
    """Summed loss of each passage, with these outputs `[B, T, V]` of one head in the place of its own."""

    def after(call: KernelCall, result: KernelResult) -> KernelResult:
        if call.layer != head.layer or outputs is None:
            return result
        output = result.output.clone()
        output[:, :, head.head] = outputs
        return result._replace(output=output)

    logits = host.logits(tokens, Tap(after=after))
    each = [cross_entropy(x[:-1].double(), t[1:], reduction="sum") for x, t in zip(logits, tokens, strict=True)]
    return [float(x) for x in each]


def test_nothing_is_left_where_every_write_is_deleted(host: Host, passages: torch.Tensor) -> None:
    """Not the native writes are taken out but those of the edited run, which a head with erase terms changes: it hands
    on nothing then, whichever form of the write is deleted."""
    few = passages[:2, :23]
    result = passage_loss(host, dictionary(), few, site=SITE, features=tuple(range(61)), amplitudes="coefficient")
    assert result.more["firings"].groupby(["passage", "native_write"]).size().eq(23).all()
    zero = loss(host, few, SITE, torch.zeros(2, 23, 32))
    native = loss(host, few, SITE, None)
    for record in result.records[result.records.timing == "at_token"].to_dict("records"):
        assert record["nll_native"] == pytest.approx(native[record["passage"]], abs=1e-4)
        assert record["nll_delete"] - record["nll_native"] == pytest.approx(
            zero[record["passage"]] - native[record["passage"]], rel=1e-3, abs=1e-4
        )
        assert abs(record["nll_again"] - record["nll_native"]) < 1e-3 * abs(record["nll_delete"] - record["nll_native"])


def test_atoms_stand_in_the_place_of_all_writes(host: Host, passages: torch.Tensor) -> None:
    """Where every write is replaced by its atom, the head is the recurrence of the atoms alone."""
    few, sae = passages[:1, :19], dictionary()
    features = tuple(range(61))
    result = passage_loss(host, sae, few, site=SITE, features=features, timings="at_token", native_writes="delta")
    stream, atoms = host.record(few, [5])[5].heads(2), sae.atoms()
    key, update = stream.key[0, :, 0], delta_values(stream)[0][0, :, 0]
    for amplitude in ("coefficient", "norm"):
        state, outputs = torch.zeros(32, 32), []
        for t, f in enumerate(result.more["firings"].sort_values("position").to_dict("records")):
            atom = torch.outer(atoms.v[f["feature"]], atoms.w[f["feature"]])
            norm = key[t].norm() * update[t].norm() / atom.norm()
            state = stream.log_decay[0, t, 0].exp() * state + atom * (norm if amplitude == "norm" else f["coefficient"])
            outputs.append(stream.query[0, t, 0] @ state)
        slow = loss(host, few, SITE, torch.stack(outputs)[None])[0] - loss(host, few, SITE, None)[0]
        (record,) = result.records[result.records.amplitude == amplitude].to_dict("records")
        assert record["nll_atom"] - record["nll_native"] == pytest.approx(slow, rel=1e-3, abs=1e-4)


def test_classes_are_of_the_form_that_is_replaced(host: Host, passages: torch.Tensor) -> None:
    config = PassageLossConfig(kind="bundle", timings=("after_token",))
    result = passage_loss(host, dictionary(), passages[:3], site=SITE, config=config)
    assert result.attempted == 2 * 3 == result.n + sum(result.refused.values())
    fired = result.more["firings"]
    for form in FORMS:
        own = result.records[result.records.native_write == form]
        counts = fired[fired.native_write == form].groupby("passage").size()
        assert own.groupby("passage").firings.first().to_dict() == counts.to_dict()
        alone = passage_loss(host, dictionary(), passages[:3], site=SITE, config=replace(config, native_writes=(form,)))
        pd.testing.assert_frame_equal(alone.records, own.reset_index(drop=True), rtol=1e-5)


def test_what_changes_no_more_than_rounding_is_no_finding() -> None:
    table = pd.DataFrame({"passage": [0, 1, 2], "firings": 1, "tokens": 4, "nll_native": 2.0})
    table = table.assign(timing="at_token", native_write="delta", amplitude="norm", nll_atom=2.0, nll_random=2.0)
    quiet = table.assign(nll_delete=[2.0001, 2.0002, 2.3], nll_again=2.0001)
    cell = summarise({"records": quiet}, PassageLossConfig()).cell(condition="delete")
    assert cell.bits.above == pytest.approx(1 / 3)
    assert cell.bits.small


def test_by_hand() -> None:
    table = pd.DataFrame({"passage": [0, 1], "firings": [3, 1], "tokens": [4, 4], "nll_native": [2.0, 2.0]})
    table = table.assign(timing="at_token", native_write="delta", amplitude="norm", nll_again=2.0)
    table = table.assign(nll_atom=[2.0, 2.0], nll_delete=[2 + 4 * math.log(2), 2.0], nll_random=[3.0, 3.0])
    summary = summarise({"records": table}, PassageLossConfig())
    assert [cell.condition for cell in summary.cells] == ["atom", "delete", "random"]
    s = summary.cell(condition="delete")
    assert (s.timing, s.native_write, s.amplitude) == ("at_token", "delta", "norm")
    assert (s.bits.passages, s.firings, s.bits.above) == (2, 4, 0.5)
    assert all(
        math.isnan(cell.recovered) for cell in summary.cells
    )  # what deletion adds may be nothing: its interval holds zero
    costly = table.assign(nll_delete=[6.0, 4.0], nll_atom=[3.0, 2.5])
    clear = summarise({"records": costly}, PassageLossConfig()).cell(condition="atom")
    assert clear.recovered == pytest.approx(1 - 1.5 / 6)
    bits = {cell.condition: cell.bits.mean for cell in summary.cells}
    assert bits == pytest.approx({"atom": 0.0, "delete": 0.5, "random": 0.25 / math.log(2)})
    assert (s.bits.interval.low, s.bits.interval.high) == pytest.approx((0.0, 1.0))


def test_features_that_are_nowhere_the_top_one_are_refused(host: Host, passages: torch.Tensor) -> None:
    fired = firings_by_form(host, dictionary(), SITE, passages[:1], ("delta",))
    low = sorted(set(range(61)) - set(fired[fired.order == 0].feature))
    with pytest.raises(InputError, match="fires as the top one anywhere"):
        passage_loss(host, dictionary(), passages[:1], site=SITE, features=tuple(low[:2]))
    with pytest.raises(InputError, match="the dictionary has 0 to 60"):
        passage_loss(host, dictionary(), passages[:1], site=SITE, features=(61,))
