"""Tokens a second of training steps on a device, for one head and for many at once.

    python benchmarks/device_training.py [--device cuda] [--features 2048 16384] [--heads 1 16] [--tokens 4096]

For each dictionary size, precision and number of heads (stepped together, as `train_many` does on a CUDA device): the
tokens a second of all heads, the share of the device's measured matrix rate in that precision that the step's products
take, the time of the paper's recipe (5 M tokens, 20 epochs) for those heads, and the peak memory. Steps are optimiser
steps: loss, gradients, clipping, Adam. Reading a store is not included (`train_end_to_end.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table
from step_time import floor_ms, make

from writesae.devices import choose_device
from writesae.sae import SAE
from writesae.sae.batch import Batch
from writesae.sae.step import losses_and_gradients
from writesae.sae.workspace import Workspace
from writesae.training.config import Precision
from writesae.training.process import products

RECIPE_TOKENS = 5_000_000 * 20
"""Tokens of the published recipe, all epochs (paper App. D)."""


@dataclass(frozen=True)
class Options:
    """Measure training steps on a device."""

    device: str = "cuda"
    """Where."""
    features: tuple[int, ...] = (2048, 16384)
    """Dictionary sizes."""
    heads: tuple[int, ...] = (1, 16)
    """Heads stepped together."""
    precisions: tuple[Precision, ...] = ("float32", "tf32", "bfloat16")
    """Of the products."""
    target: Literal["state", "write"] = "state"
    """What is modelled."""
    d: int = 128
    """Key and value side."""
    k: int = 32
    """Active atoms a token."""
    tokens: int = 4096
    """Tokens of one head's step."""
    chunk: int = 64
    """Tokens of a chunk."""
    repeats: int = 20
    """Timed steps, after three to warm up."""


def wait(device: torch.device) -> None:
    """Until the device has done everything."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(step: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Mean wall time of a step."""
    for _ in range(3):
        step()
    wait(device)
    started = time.perf_counter()
    for _ in range(repeats):
        step()
    wait(device)
    return (time.perf_counter() - started) / repeats


def matrix_rate(device: torch.device, precision: Precision) -> float:
    """Flops a second of large products, of bfloat16 numbers or of fp32 numbers in that precision."""
    size = 8192 if device.type == "cuda" else 512
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16 if precision == "bfloat16" else torch.float32)
    with products(precision):
        return 2 * size**3 / seconds(lambda: a @ a, device, 10)


def trainer(
    options: Options, features: int, heads: int, precision: Precision, device: torch.device
) -> Callable[[], None]:
    """A function that makes one optimiser step of every head."""
    saes: list[SAE] = []
    batches: list[Batch] = []
    for _ in range(heads):
        sae, batch = make(features, options.d, options.k, options.tokens, options.chunk, False, options.target)
        saes.append(sae.to(device))
        batches.append(type(batch)(*(None if x is None else x.to(device) for x in batch)))  # type: ignore[arg-type]
    optimisers = [torch.optim.Adam(sae.parameters(), lr=1e-4, fused=True) for sae in saes]
    work = Workspace()

    def step() -> None:
        with products(precision) as half:
            losses_and_gradients(saes, batches, None, None, work, half)
        for sae, optimiser in zip(saes, optimisers, strict=True):
            torch.nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
            optimiser.step()

    return step


def main(options: Options) -> None:
    """Measure and print."""
    device = choose_device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    table = Table("features", "precision", "heads", "ms a step", "tokens/s", "share of rate", "recipe", "peak GiB")
    for features in options.features:
        for precision in options.precisions:
            rate = matrix_rate(device, precision)
            for heads in options.heads:
                if device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats(device)
                step = seconds(trainer(options, features, heads, precision, device), device, options.repeats)
                tokens = heads * options.tokens / step
                shape = (features, options.d, options.k, options.tokens, options.chunk)
                share = heads * floor_ms(*shape, options.target, rate) / (step * 1e3)
                peak = f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f}" if device.type == "cuda" else "-"
                recipe = RECIPE_TOKENS * heads / tokens / 60
                table.add_row(
                    f"{features:,}", precision, str(heads), f"{step * 1e3:.1f}", f"{tokens:,.0f}",
                    f"{share:.1%}", f"{recipe:.1f} min", peak,
                )  # fmt: skip
    console = Console()
    console.print(f"{name}, torch {torch.__version__}, {options.target} target, d = {options.d}, k = {options.k}, "
                  f"{options.tokens:,} tokens a head and step")  # fmt: skip
    console.print(table)


if __name__ == "__main__":
    main(tyro.cli(Options))
