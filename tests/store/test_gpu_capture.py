"""Capture on a GPU: what is stored is what is stored on the CPU, up to the arithmetic of its kernels."""

from pathlib import Path

import pytest
import torch
from torch import nn

from random_hosts import some_tokens
from tiny_models import build_tiny, lacking
from writesae.hosts import load
from writesae.store import capture, open_store
from writesae.types import Site

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("family", [x for x in ("qwen3_next", "kimi_linear", "mamba2") if lacking(x) is None])
def test_the_same_is_stored(family: str, tmp_path: Path) -> None:
    hosts = load(build_tiny(family)), load(nn.Module.cuda(build_tiny(family)))
    layer = next(iter(hosts[0].layers))
    stores = []
    for host, name in zip(hosts, ("cpu", "cuda"), strict=True):
        capture(host, some_tokens(rows=2, time=19).numpy(), layers=[layer], out=tmp_path / name, store_dtype="float32")
        stores.append(open_store(tmp_path / name))
    here, there = (store.read(Site(layer, 1), 0, 2) for store in stores)
    assert there.key.device.type == "cpu"
    torch.testing.assert_close(there.key, here.key, rtol=2e-2, atol=1e-4)
    torch.testing.assert_close(there.update, here.update, rtol=2e-2, atol=1e-4)
