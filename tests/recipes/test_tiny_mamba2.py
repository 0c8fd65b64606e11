"""The Mamba-2 recipe: its kernels equal transformers', and a few steps end in a host that loads."""

from __future__ import annotations

import json
import lzma
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.mamba2 import modeling_mamba2

from writesae.corpus import read_documents
from writesae.hosts import EMBEDDED, load

RECIPES = Path(__file__).parents[2] / "recipes"
SMALL = ["--shape.layers", "2", "--shape.hidden", "24", "--shape.d-k", "8", "--shape.d-v", "16"]
SMALL += ["--batch", "2", "--length", "32", "--budget", str(2 * 32 * 30), "--no-compile", "--device", "cpu"]
BATCH, TIME, HEADS, D_V, D_K = 2, 71, 3, 7, 5
KERNELS = ("causal_conv1d_fn", "mamba2_chunk_scan")


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The recipe's model file, which is no package; transformers' kernels are put back afterwards."""
    monkeypatch.syspath_prepend(str(RECIPES / "tiny_mamba2"))
    for name in KERNELS:
        monkeypatch.setattr(modeling_mamba2, name, getattr(modeling_mamba2, name))
    return import_module("mamba2")


def agree(ours: Callable[..., Tensor], theirs: Callable[..., Tensor], inputs: list[Tensor]) -> None:
    """Equal in value and in every gradient."""
    found, expected = ours(*inputs), theirs(*inputs)
    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    gradients = [torch.autograd.grad((output * weight).sum(), inputs) for output in (found, expected)]
    for own, other in zip(*gradients, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))


def drawn(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


def test_the_scan_equals_transformers(recipe: Any) -> None:
    groups = (BATCH, TIME, 1, D_K)
    inputs = drawn((BATCH, TIME, HEADS, D_V), (BATCH, TIME, HEADS), groups, groups, (HEADS,), (HEADS,), (HEADS,))

    def call(kernel: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def run(x: Tensor, dt: Tensor, key: Tensor, query: Tensor, rate: Tensor, skip: Tensor, bias: Tensor) -> Tensor:
            return kernel(x, dt, -rate.exp(), key, query, chunk_size=17, D=skip, dt_bias=bias, dt_softplus=True)

        return run

    agree(call(recipe.scan), call(modeling_mamba2.mamba2_chunk_scan), inputs)


def test_the_convolution_equals_transformers(recipe: Any) -> None:
    def call(kernel: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda x, weight, bias: kernel(x, weight, bias, activation="silu")

    agree(call(recipe.convolve), call(modeling_mamba2.causal_conv1d_fn), drawn((2, 11, 19), (11, 4), (11,)))


def test_a_whole_model_is_unchanged_by_the_kernels(recipe: Any) -> None:
    own = [getattr(modeling_mamba2, name) for name in KERNELS]
    torch.manual_seed(0)
    model = recipe.build_model(recipe.Shape(layers=2, hidden=24, d_k=5, d_v=8), 101, "cpu").eval()
    tokens = torch.randint(101, (2, 43), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        fast = model(tokens, use_cache=False).logits
        for name, kernel in zip(KERNELS, own, strict=True):
            setattr(modeling_mamba2, name, kernel)
        torch.testing.assert_close(fast, model(tokens, use_cache=False).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_few_steps_end_in_a_host(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    text = next(iter(read_documents("sample"))).text[:30_000]
    rows = [{"split": "heldout", "text": text[:4000]}, {"split": "train", "text": text[4000:]}]
    with lzma.open(tmp_path / "corpus" / "source.jsonl.xz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    shared = EMBEDDED["tiny-gdn"] / "tokenizer.json"
    for script, flags in (
        ("tiny_gdn/prepare.py", ["--corpus", "corpus", "--tokens", "tokens", "--tokenizer", str(shared)]),
        ("tiny_mamba2/train.py", ["--tokens", "tokens", "--out", "run", *SMALL]),
    ):
        subprocess.run([sys.executable, str(RECIPES / script), *flags], check=True, cwd=tmp_path)
    assert (tmp_path / "tokens" / "tokenizer.json").read_text() == shared.read_text()
    bits = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()][-1]["bits_a_byte"]
    assert 1 < bits["all"] < 8
    host = load(tmp_path / "run" / "host")
    assert [(layer.heads, layer.d_k, layer.d_v) for layer in host.layers.values()] == [(3, 8, 16)] * 2
