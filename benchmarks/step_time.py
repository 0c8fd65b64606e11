"""Time of one training step (forward and backward), factored against dense, on one CPU thread.

    python benchmarks/step_time.py [--features 2048 4096 8192 16384] [--d 64 128] [--k 32] [--tokens 256] [--quick]

Prints for each head and dictionary size and both targets: milliseconds of the factored step, of the dense bilinear step
(einsum encoder over ready-made states, dense decode) and of a dense flat TopK step; how many times faster the factored
one is; the multiple of the floor that it takes (its matrix products at this machine's measured rate); the peak memory
that it adds as a share of the dense bilinear step's, each in a process of its own; and the largest relative error of
the loss and the gradients. The largest dense steps take about 6 GiB.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from writesae.sae import SAE, Bilinear, Factored, Flat, Linear, SAEConfig, TopK
from writesae.sae.batch import Batch, States, Writes
from writesae.sae.loss import dense_loss
from writesae.sae.sparse_loss import sparse_loss
from writesae.sae.workspace import Workspace


def best_ms(step: Callable[[], object], repeats: int) -> float:
    """Fastest of some runs, in milliseconds of processor time (one thread), after one to warm up if they are many."""
    if repeats > 2:
        step()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        step()
        times.append(time.process_time() - start)
    return 1e3 * min(times)


def gemm_rate() -> float:
    """Flops a second of a large fp32 product on this thread."""
    a = torch.randn(1024, 1024)
    return 2 * 1024**3 / (best_ms(lambda: a @ a, 10) / 1e3)


def make(features: int, d: int, k: int, tokens: int, chunk: int, flat: bool, target: str) -> tuple[SAE, Batch]:
    """A random dictionary and a batch for it."""
    g = torch.Generator().manual_seed(0)
    encoder, decoder = (Linear(), Flat()) if flat else (Bilinear(), Factored())
    sae = SAE(SAEConfig(d, d, features, encoder, TopK(k), decoder), g)
    key = torch.nn.functional.normalize(torch.randn(tokens // chunk, chunk, d, generator=g), dim=-1)
    update = torch.randn(tokens // chunk, chunk, d, generator=g)
    if target == "write":
        return sae, Writes(key.flatten(0, 1), update.flatten(0, 1))
    decay = -0.1 * torch.rand(tokens // chunk, chunk, 1, generator=g)
    return sae, States(key, update, decay, torch.randn(tokens // chunk, d, d, generator=g))


def dense_step(sae: SAE, matrices: Tensor) -> dict[str, Tensor]:
    """The obvious step: everything dense, autograd."""
    loss = dense_loss(sae, matrices)
    names = [name for name, _ in sae.named_parameters()]
    return dict(zip(names, torch.autograd.grad(loss.total, list(sae.parameters())), strict=True)) | {"loss": loss.total}


def dense_time(shape: tuple[int, int, int, int, int], flat: bool, repeats: int) -> float:
    """Milliseconds of the dense step, flat or bilinear, on ready-made states."""
    sae, batch = make(*shape, flat=flat, target="state")
    matrices = batch.matrices()
    return best_ms(lambda: dense_step(sae, matrices), repeats)


def agreement(sae: SAE, batch: Batch) -> float:
    """Largest relative difference, loss and every gradient, between the factored and the dense step."""
    dense = dense_step(sae, batch.matrices())
    loss, gradients = sparse_loss(sae, batch)
    found = {**gradients, "loss": loss.total}
    return max(float((found[name] - want.detach()).norm() / want.detach().norm()) for name, want in dense.items())


def floor_ms(features: int, d: int, k: int, tokens: int, chunk: int, target: str, rate: float) -> float:
    """Time of the matrix products of a factored step at the measured rate."""
    flops = 2 * tokens * features * 2 * d
    if target == "state":
        flops += 2 * (tokens // chunk) * features * d * d + 2 * tokens * (chunk + 1) * features
        flops += 5 * 2 * tokens * k * d * d
    else:
        flops += 4 * 2 * tokens * k * k * d
    return 1e3 * flops / rate


def _peak(kind: str, shape: tuple[int, int, int, int, int], result: multiprocessing.Queue[float]) -> None:
    torch.set_num_threads(1)
    sae, batch = make(*shape, flat=kind == "flat", target="write" if kind == "write" else "state")
    matrices = batch.matrices() if kind in ("dense", "flat") else None
    Path("/proc/self/clear_refs").write_text("5")  # start the peak afresh
    before = high_water()
    dense_step(sae, matrices) if matrices is not None else sparse_loss(sae, batch)
    result.put((high_water() - before) / 1024)


def high_water() -> int:
    """Peak resident memory of this process so far, KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def peak_mb(kind: str, shape: tuple[int, int, int, int, int]) -> float:
    """MiB that one step adds to the peak memory of a fresh process."""
    context = multiprocessing.get_context("spawn")
    queue: multiprocessing.Queue[float] = context.Queue()
    process = context.Process(target=_peak, args=(kind, shape, queue))
    process.start()
    value = queue.get()
    process.join()
    return value


def measure(features: int, d: int, options: argparse.Namespace, rate: float) -> None:
    """One size: the dense steps, then both targets, a line each."""
    shape = (features, d, options.k, options.tokens, options.chunk)
    few = max(1, options.repeats // 3)
    flat_ms, dense_ms = (dense_time(shape, kind, few) for kind in (True, False))
    memory = {} if options.no_memory else {kind: peak_mb(kind, shape) for kind in ("dense", "state", "write")}
    for target in ("state", "write"):
        sae, batch = make(*shape, flat=False, target=target)
        work = Workspace()
        step = best_ms(lambda s=sae, b=batch, w=work: sparse_loss(s, b, work=w), options.repeats)  # type: ignore[misc]
        floor = floor_ms(*shape, target, rate)
        room = f"1/{memory['dense'] / max(memory[target], 1):.0f}" if memory else "-"
        print(
            f"{d:4} {features:9,} {target:>7} {step:9.1f} {dense_ms:11,.0f} {flat_ms:9,.0f}"
            f" {dense_ms / step:9.0f}x {flat_ms / step:8.0f}x {step / floor:8.1f}x {room:>9}"
            f" {agreement(sae, batch) if options.check else math.nan:10.0e}",
            flush=True,
        )


def main() -> None:
    """Measure the grid and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, nargs="+", default=[2048, 4096, 8192, 16384])
    parser.add_argument("--d", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--chunk", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=10, help="runs of a factored step; dense steps run a third")
    parser.add_argument("--no-memory", action="store_true", help="leave the processes out that measure memory")
    parser.add_argument("--no-check", dest="check", action="store_false", help="leave the gradients unchecked")
    parser.add_argument("--quick", action="store_true", help="one small size, seconds")
    options = parser.parse_args()
    if options.quick:
        options.features, options.d, options.repeats = [2048], [64], 4
    torch.set_num_threads(1)
    rate = gemm_rate()
    print(f"torch {torch.__version__}, 1 thread, fp32 products at {rate / 1e9:.0f} Gflop/s")
    print(f"k = {options.k}, {options.tokens} tokens in chunks of {options.chunk}; processor time, memory of one step")
    print("   d  features  target   step ms  bilinear ms   flat ms   bilinear     flat   floor    memory  gradients")
    for d in options.d:
        for features in options.features:
            measure(features, d, options, rate)


if __name__ == "__main__":
    main()
