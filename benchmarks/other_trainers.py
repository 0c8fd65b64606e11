"""A training step of our dictionaries against SAELens' and sparsify's TopK SAE on the same flattened states.

    pip install -r benchmarks/requirements-other-trainers.txt   # in an environment of its own: see there
    python benchmarks/other_trainers.py [--presets writesae flat matrix] [--features 2048] [--d 128] [--threads 1]

Every contestant runs in a fresh process with the same tokens, `k`, `features` and threads. A step is what its library
does with a batch that is at hand: forward, loss, backward, and with Adam the update and whatever keeps the decoder at
unit norm (SAELens: `training_forward_pass` and clipping as in its trainer; sparsify: normalised decoder and projected
gradients as in its trainer, `embedding_bag` in place of its triton decoder on a CPU). No feature is dead, so no
auxiliary loss is computed anywhere. Memory is the peak of the process above what imports hold: parameters, gradients,
Adam's moments, batch and temporaries.

The others' batch is ready-made states; ours is the writes, from which states are rebuilt within the step.
"""

from __future__ import annotations

import argparse
import multiprocessing
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch
from step_time import best_ms, high_water
from torch import Tensor

from writesae.sae import SAE, SAEConfig, TopK
from writesae.sae.batch import Batch, States, Writes
from writesae.sae.presets import preset
from writesae.sae.step import loss_and_gradients
from writesae.sae.workspace import Workspace

Step = Callable[[], object]


class Shape(NamedTuple):
    """What every contestant is given."""

    features: int
    d: int
    k: int
    tokens: int
    chunk: int
    threads: int
    repeats: int


class Cost(NamedTuple):
    """What a contestant's step costs."""

    gradient_ms: float
    """Forward and backward."""
    step_ms: float
    """The same and the update of the parameters."""
    memory: float
    """Peak, MiB."""


def tokens_of(shape: Shape) -> States:
    """Random writes with a state before each chunk; the same for everyone."""
    g = torch.Generator().manual_seed(0)
    chunks = shape.tokens // shape.chunk
    key = torch.nn.functional.normalize(torch.randn(chunks, shape.chunk, shape.d, generator=g), dim=-1)
    update = torch.randn(chunks, shape.chunk, shape.d, generator=g)
    decay = -0.1 * torch.rand(chunks, shape.chunk, 1, generator=g)
    return States(key, update, decay, torch.randn(chunks, shape.d, shape.d, generator=g))


def ours(name: str, target: str, shape: Shape) -> tuple[Step, Step]:
    """One of our presets, by the step that training takes."""
    states, parts = tokens_of(shape), preset(name)
    batch: Batch = states
    if target == "write":
        batch = Writes(states.key.flatten(0, 1), states.update.flatten(0, 1))
    sae = SAE(SAEConfig(shape.d, shape.d, shape.features, parts.encoder, TopK(shape.k), parts.decoder))
    optimiser, work = torch.optim.Adam(sae.parameters(), fused=True), Workspace()

    def gradient() -> None:
        loss_and_gradients(sae, batch, work=work)

    def step() -> None:
        gradient()
        torch.nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
        optimiser.step()

    return gradient, step


def saelens(sparse: bool, shape: Shape) -> tuple[Step, Step]:
    """SAELens' TopKTrainingSAE and the steps of its `SAETrainer._train_step`."""
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.saes.sae import TrainStepInput

    config = TopKTrainingSAEConfig(
        d_in=shape.d**2,
        d_sae=shape.features,
        k=shape.k,
        use_sparse_activations=sparse,
        rescale_acts_by_decoder_norm=not sparse,  # torch 2.13 has no backward for the rescaling of sparse codes
        device="cpu",
    )
    sae, states = TopKTrainingSAE(config), tokens_of(shape).matrices().flatten(1)
    alive = torch.zeros(shape.features, dtype=torch.bool)
    optimiser = torch.optim.Adam(sae.parameters())

    def gradient() -> None:
        optimiser.zero_grad()
        given = TrainStepInput(states, {}, alive, n_training_steps=0, is_logging_step=False)
        sae.training_forward_pass(given).loss.backward()

    def step() -> None:
        gradient()
        torch.nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
        optimiser.step()

    return gradient, step


def sparsify(shape: Shape) -> tuple[Step, Step]:
    """sparsify's SparseCoder and the steps of its `Trainer.fit`, with Adam."""
    from sparsify import SparseCoder, SparseCoderConfig

    sae = SparseCoder(shape.d**2, SparseCoderConfig(num_latents=shape.features, k=shape.k))
    states = tokens_of(shape).matrices().flatten(1)
    optimiser = torch.optim.Adam(sae.parameters())

    def gradient() -> None:
        optimiser.zero_grad()
        found: Tensor = sae(states).fvu
        found.backward()

    def step() -> None:
        sae.set_decoder_norm_to_unit_norm()
        gradient()
        sae.remove_gradient_parallel_to_decoder_directions()
        optimiser.step()

    return gradient, step


def contestants(presets: list[str]) -> dict[str, tuple[str, ...]]:
    """Rows of the table, and what makes each."""
    rows: dict[str, tuple[str, ...]] = {
        f"writesae, {name}, {target}": ("ours", name, target) for name in presets for target in ("state", "write")
    }
    rows["SAELens TopK"] = ("saelens", "dense")
    rows["SAELens TopK, sparse activations"] = ("saelens", "sparse")
    rows["sparsify TopK"] = ("sparsify",)
    return rows


def _make(what: tuple[str, ...], shape: Shape) -> tuple[Step, Step]:
    if what[0] == "ours":
        return ours(what[1], what[2], shape)
    return saelens(what[1] == "sparse", shape) if what[0] == "saelens" else sparsify(shape)


def _measure(what: tuple[str, ...], shape: Shape) -> Cost:
    warnings.simplefilter("ignore")
    torch.set_num_threads(shape.threads)
    if what[0] != "ours":  # their imports are not the step's memory
        __import__({"saelens": "sae_lens", "sparsify": "sparsify"}[what[0]])
    Path("/proc/self/clear_refs").write_text("5")  # start the peak afresh
    before = high_water()
    gradient, step = _make(what, shape)
    step()
    gradient_ms = best_ms(gradient, shape.repeats)
    step_ms = best_ms(step, shape.repeats)
    return Cost(gradient_ms, step_ms, (high_water() - before) / 1024)


def measure(what: tuple[str, ...], shape: Shape) -> Cost:
    """The cost of one contestant, in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
        return fresh.submit(_measure, what, shape).result()


def main() -> None:
    """Measure everyone in turn, `rounds` times over, and print the fastest of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["writesae", "flat", "matrix"])
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--d", type=int, default=128)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--chunk", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    o = parser.parse_args()
    shape = Shape(o.features, o.d, o.k, o.tokens, o.chunk, o.threads, o.repeats)
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "sae-lens", "eai-sparsify"))
    print(f"{libraries}; {o.threads} thread(s), {o.tokens} tokens, d = {o.d}, k = {o.k}, {o.features:,} features")
    rows = contestants(o.presets)
    rounds = [{name: measure(what, shape) for name, what in rows.items()} for _ in range(o.rounds)]
    best = {name: Cost(*map(min, zip(*(found[name] for found in rounds), strict=True))) for name in rows}
    first = best[next(iter(rows))]
    print(f"{'':34}  gradients ms    step ms   peak MiB   step and memory, first row = 1")
    for name, cost in best.items():
        times, more = cost.step_ms / first.step_ms, cost.memory / first.memory
        print(
            f"{name:34}  {cost.gradient_ms:12,.1f} {cost.step_ms:10,.1f} {cost.memory:10,.0f}   "
            f"{times:6.1f}x {more:6.1f}x"
        )


if __name__ == "__main__":
    main()
