"""Every evaluation on a GPU: what is scored is what is scored on the CPU, and so are the effects of single writes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch import Tensor

from small_results import small_result
from writesae.evals import EVALUATIONS
from writesae.evals.common.result import Result
from writesae.hosts import Host, load

Results = dict[str, Result[Any, Any]]

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def on_gpu() -> Host:
    return load("tiny-gdn", device="cuda")


@pytest.mark.parametrize("name", list(EVALUATIONS))
def test_the_same_is_scored(name: str, on_gpu: Host, few_passages: dict[str, Tensor], results: Results) -> None:
    result, here = small_result(name, on_gpu, few_passages[name]), results[name]
    assert result.provenance.device.startswith("cuda")
    assert (result.attempted, result.n, result.refused) == (here.attempted, here.n, here.refused)
    assert result.provenance.revision == here.provenance.revision
    assert result.finding
    assert result.panel.plots
    for column in [c for c in here.records.columns if str(c).startswith("kl_")]:
        ours, theirs = (r.records[column].to_numpy(float) for r in (result, here))
        np.testing.assert_allclose(ours, theirs, rtol=5e-2, atol=1e-7)
