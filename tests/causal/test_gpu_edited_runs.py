"""Edited runs on a GPU against the same runs on the CPU: forked rows, whole passages, prices and their check."""

import numpy as np
import pytest
import torch
from torch import nn

from random_hosts import dictionary, some_text, some_tokens
from tiny_models import build_tiny
from writesae.attribution import Logit, ablate_atoms, ablate_heads, ablate_writes, attribute
from writesae.causal.divergence import kl_divergence, rounding_floor
from writesae.causal.passages import edited_losses
from writesae.causal.patching import Edits, patched_logits
from writesae.causal.writes import head_writes
from writesae.edits import ChangeFeatures, Edit, Firing, generate
from writesae.hosts import Host, load
from writesae.hosts.fork import native_run
from writesae.types import Site

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore")]
SITE = Site(1, 2)


@pytest.fixture(params=["qwen3_next", "kimi_linear", "mamba2"], scope="module")
def pair(request: pytest.FixtureRequest) -> tuple[Host, Host]:
    """The same weights on both devices."""
    return load(build_tiny(request.param)), load(nn.Module.cuda(build_tiny(request.param)))


def deletions(host: Host) -> tuple[torch.Tensor, torch.Tensor]:
    """KLs of deleted writes by forked rows `[n]`, and losses by whole passages."""
    tokens = some_tokens(rows=2, time=19)
    run = native_run(host, tokens, SITE.layer)
    writes = head_writes(run, SITE.head)
    passage, position = torch.tensor([0, 0, 1]), torch.tensor([4, 9, 2])
    key, value = (x[passage, position, None] for x in (writes.written.key, writes.side("delta")))
    edits = Edits([SITE.head], passage, position, key, value, -torch.ones(3, 1, 1).to(key), {0: "delta"})
    kl = torch.zeros(3, dtype=torch.float64)
    for scored in patched_logits(run, edits, "at_token"):
        kl[scored.which] = kl_divergence(scored.native, scored.patched[:, 0])[:, 0].cpu()
        assert (kl[scored.which] > rounding_floor(scored.native, scored.again)[:, 0].cpu()).all()
    return kl, edited_losses(host, tokens, {SITE.layer: edits}, "at_token").cpu()


def test_edited_runs_are_the_same_on_both_devices(pair: tuple[Host, Host]) -> None:
    for on_cpu, on_gpu in zip(*map(deletions, pair), strict=True):
        torch.testing.assert_close(on_gpu, on_cpu, rtol=2e-2, atol=1e-3)


def test_prices_and_their_check_are_the_same_on_both_devices(pair: tuple[Host, Host]) -> None:
    checks = []
    for host in pair:
        found = attribute(host, dictionary(host, SITE, features=31), some_text(), Logit((7,)), site=SITE)
        checks.append([check(found) for check in (ablate_writes, ablate_heads, lambda x: ablate_atoms(x, 5))])
    for on_cpu, on_gpu in zip(*checks, strict=True):
        assert on_cpu.items == on_gpu.items
        np.testing.assert_allclose(on_gpu.measured, on_cpu.measured, rtol=5e-2, atol=1e-3)


def test_generation_is_edited_on_both_devices(pair: tuple[Host, Host]) -> None:
    said = []
    for host in pair:
        sae = dictionary(host, SITE).to(host.device)
        edit = Edit(SITE, ChangeFeatures(sae, (2, 3), amounts=(9.0, 5.0)), Firing(sae, 2))
        said.append(generate(host, some_tokens(rows=2, time=9), [edit], 5, stop_at_end=False).tokens)
    assert [len(row) for row in said[1]] == [5, 5]
    assert said[0] == said[1]
