"""Which effects are real and which are rounding: the floor of a float32 run against the same run in float64."""

import pytest
import torch
from torch import Tensor

from random_hosts import some_tokens, tiny_host
from writesae.causal.divergence import kl_divergence, rounding_floor
from writesae.causal.patching import Edits, patched_logits
from writesae.causal.precision import in_float64, widened
from writesae.causal.writes import head_writes
from writesae.hosts import Host
from writesae.hosts.fork import native_run
from writesae.types import Site

SCALES = (1.0, 1e-2, 1e-4, 1e-6)
"""Shares of a write that are taken out: from clear effects to none that float32 can hold."""


def effects(host: Host, site: Site, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """KLs `[n, 4]` and floors `[n]` of taking out shares of every write of a head."""
    run = native_run(host, tokens, site.layer)
    writes = head_writes(run, site.head)
    passage, position = (x.flatten() for x in torch.meshgrid(torch.arange(3), torch.arange(1, 20), indexing="ij"))
    key, value = writes.written.key[passage, position, None], writes.value[passage, position, None]
    weight = -torch.tensor(SCALES).view(1, -1, 1).expand(len(passage), -1, -1)
    kl, floor = torch.empty(len(passage), 4).double(), torch.empty(len(passage)).double()
    for scored in patched_logits(run, Edits([site.head], passage, position, key, value, weight), "after_token"):
        kl[scored.which] = kl_divergence(scored.native.unsqueeze(1), scored.patched)[..., 0]
        floor[scored.which] = rounding_floor(scored.native, scored.again)[:, 0]
    return kl, floor


@pytest.mark.parametrize("name", ["qwen3_5", "mamba2", "falcon_h1", "kimi_linear"])
def test_ten_times_the_floor_is_real(name: str) -> None:
    host, tokens = tiny_host(name), some_tokens(rows=3, time=23)
    site = Site(next(iter(host.layers)), 1)
    kl, floor = effects(host, site, tokens)
    with in_float64():
        true, _ = effects(widened(host), site, tokens)
    bound = 10 * floor[:, None]
    assert (kl[:, 0] > bound[:, 0]).all()
    assert (kl[:, 3] > bound[:, 0]).float().mean() < 0.2
    agree = ((kl > bound) == (true > bound)).float().mean(0)
    assert (agree > 0.9).all(), agree


def test_the_floor_of_equal_rows_is_half_a_unit_squared() -> None:
    logits = torch.tensor([[3.0, -11.5, 0.0], [0.75, 0.25, -0.5]])
    unit = torch.tensor([2.0**-20, 2.0**-24])  # of float32 between 8 and 16, and between 1/2 and 1
    assert torch.equal(rounding_floor(logits, logits), (unit.double() / 2) ** 2)
    far = logits + torch.tensor([0.0, 0.0, 1.0])
    assert torch.equal(rounding_floor(logits, far), kl_divergence(logits, far))
