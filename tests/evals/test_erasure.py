"""`erasure`: deletions against the editing engine, a control of the same dose, and tests by passage."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from random_hosts import dictionary, some_tokens, tiny_host
from writesae.causal.writes import head_writes
from writesae.edits import AddMatrix, At, Edit, EraseWrite, editing, take_write
from writesae.errors import InputError
from writesae.evals import erasure
from writesae.evals.common.result import Result
from writesae.evals.common.stats import holm, wilcoxon
from writesae.evals.common.subject import subject_of
from writesae.evals.erasure import ErasureConfig
from writesae.evals.erasure.measure import loses_most
from writesae.evals.erasure.summary import COLUMNS, summarise
from writesae.hosts import Host
from writesae.hosts.fork import native_run
from writesae.types import NativeWrite, Site, Timing

SITE, TOKENS = Site(1, 4), some_tokens(8, 5, 19)


@pytest.fixture(scope="module")
def tiny() -> Host:
    """A random Qwen3.5: layers 0 and 1 recurrent with 6 heads of 5 x 7."""
    return tiny_host("qwen3_5")


@pytest.fixture(scope="module")
def result(tiny: Host) -> Result[Any, Any]:
    """Feature 2 at two doses, followed by a known token."""
    return erasure(tiny, dictionary(tiny, SITE), TOKENS, site=SITE, features=2, doses=(1.0, 2.0), firings=7, token=9)


def changed(host: Host, record: Any, size: float, write: tuple[torch.Tensor, torch.Tensor]) -> float:
    """The change of the followed token's log probability, by the engine of whole passes."""
    text, place = TOKENS[int(record["passage"])], int(record["position"])
    edit = Edit(SITE, AddMatrix(size * torch.outer(*write)), At((place,)), record["timing"])
    with torch.no_grad(), editing(host, [edit]):
        patched = host.run(text[None], keep=0)
    read = place if record["timing"] == "at_token" else place + 1
    return float((patched.log_softmax(-1) - host.logits(text[None]).log_softmax(-1))[0, read, record["token"]])


def test_it_is_a_deletion_and_its_control_adds_the_same_writes(tiny: Host, result: Result[Any, Any]) -> None:
    by = ["timing", "native_write", "condition", "dose"]
    assert len(result.summary.cells) == len(result.records.groupby(by)) == 2 * 2 * 2 * 2
    assert all(0 <= r.change.p <= 1 and r.change.n <= 7 and r.text == "token 9" for r in result.summary.cells)
    for _, part in result.records.query("dose == 2").groupby(["timing", "native_write"]):
        pair: dict[str, Any] = {row["condition"]: row for row in part[part.pair == 3].to_dict("records")}
        taken, added = pair["delete"], pair["elsewhere"]
        form: NativeWrite = taken["native_write"]
        write = take_write(tiny, TOKENS[int(taken["passage"])], SITE, int(taken["position"]), form)
        assert taken["norm"] == pytest.approx(2 * float(write.key.norm() * write.value.norm()), rel=1e-5)
        assert taken["change"] == pytest.approx(changed(tiny, taken, -2, write), abs=1e-5)
        assert added["change"] == pytest.approx(changed(tiny, added, 2, write), abs=1e-5)


def test_the_control_has_the_dose_of_the_erasure_and_is_where_the_feature_is_quiet(
    tiny: Host, result: Result[Any, Any]
) -> None:
    """What is added has the norm of what is taken out, pair by pair: not that of a mean write, a quarter of it."""
    norms = result.records.pivot_table(
        index=["timing", "native_write", "dose", "pair"], columns="condition", values="norm"
    )
    np.testing.assert_array_equal(norms["delete"], norms["elsewhere"])
    writes = head_writes(native_run(tiny, TOKENS, SITE.layer), SITE.head)
    codes = writes.encode(dictionary(tiny, SITE)).dense(13)[..., 2] > 0
    for condition, fires in (("delete", True), ("elsewhere", False)):
        part = result.records[result.records.condition == condition]
        assert (codes[part.passage.tolist(), part.position.tolist()] == fires).all()
        assert part.position.between(1, 17).all()


def test_firings_of_one_passage_are_one_observation() -> None:
    """Fifty firings in each of three passages, all lowered: a test of 150 firings says 1e-26, three passages 1/4."""
    generator = np.random.default_rng(0)
    passage = np.repeat([0, 1, 2], 50)
    row = dict.fromkeys(COLUMNS, 0) | {"timing": "after_token", "native_write": "delta", "text": "x", "dose": 1.0}
    tables = {
        "records": pd.DataFrame([row] * 150).assign(
            condition="delete", passage=passage, pair=range(150), change=-1 - generator.random(150), floor=0.5
        )
    }
    (cell,) = summarise(tables, ErasureConfig()).cells
    found = cell.change
    means = tables["records"].groupby("passage")["change"].mean()
    assert found.p == holm([wilcoxon(means, np.zeros(3)).p])[0] == 0.25
    assert (found.n, found.passages, found.above) == (150, 3, 1.0)
    assert found.interval.low >= means.min() - 1e-12
    assert found.interval.high <= means.max() + 1e-12


def test_the_token_a_feature_stands_for_can_be_measured(tiny: Host) -> None:
    """On one half of the passages, against the editing engine, and tested on the other."""
    sae, tokens = dictionary(tiny, SITE), some_tokens(8, 12, 19)
    options: dict[str, Any] = {"doses": (1.0,), "follow": "measured", "native_writes": "delta"}
    found = erasure(tiny, sae, tokens, site=SITE, timings=("after_token", "at_token"), **options)
    assert found.records.passage.nunique() <= 6
    subject = subject_of(erasure, tiny, (sae, tokens), SITE, None, None, 0, ())
    places = pd.DataFrame({"passage": [0, 2, 5], "position": [3, 9, 17], "condition": "delete"})
    places = places.assign(from_passage=places.passage, from_position=places.position)
    timings: tuple[Timing, ...] = ("after_token", "at_token")
    for timing in timings:
        token = loses_most(subject, ErasureConfig(native_writes=("delta",)), places, timing, "delta")
        change, later = torch.zeros(101), int(timing == "after_token")
        for row, place in zip(places.passage, places.position, strict=True):
            text = tokens[row][None]
            with torch.no_grad(), editing(tiny, [Edit(SITE, EraseWrite("delta"), At((place,)), timing)]):
                patched = tiny.run(text, keep=0)[0, place + later].log_softmax(-1)
            change += patched - tiny.logits(text)[0, place + later].log_softmax(-1)
        assert token == int(change.argmin())


def test_effects_at_the_rounding_are_too_small_to_decide(tiny: Host) -> None:
    options: dict[str, Any] = {"features": 2, "firings": 7, "token": 9, "timings": "after_token", "site": SITE}
    small = erasure(tiny, dictionary(tiny, SITE), TOKENS, doses=(1e-7,), **options)
    assert all(r.change.above < 0.5 for r in small.summary.cells)
    assert small.finding.count("too small to decide") == 2


def test_bad_input_is_one_line(tiny: Host) -> None:
    sae = dictionary(tiny, SITE)
    with pytest.raises(InputError, match="feature 13 was asked for; the dictionary has 0 to 12"):
        erasure(tiny, sae, TOKENS, site=SITE, features=13)
    sae.b_enc.data[5] = -1e9
    with pytest.raises(InputError, match="fires at 0 of 85 places"):
        erasure(tiny, sae, TOKENS, site=SITE, features=5)
