"""What an attribution costs beside one forward and one backward pass of the same prompt: medians, one thread.

python benchmarks/attribution_cost.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from writesae import corpus
from writesae.attribution import Logit, attribute
from writesae.hosts import load
from writesae.sae import SAE, SAEConfig, TopK
from writesae.types import Site

TOKENS, ATOMS, REPEATS = 256, 512, 7


def seconds(run: Callable[[], object]) -> float:
    """Median wall time of `REPEATS` runs after one to warm up."""
    run()
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def main() -> None:
    """Print three figures: a plain pass with its backward pass, one site, and all native writes besides."""
    torch.set_num_threads(1)
    host, site = load("tiny-gdn"), Site(5, 0)
    layer = host.layers[site.layer]
    text = torch.from_numpy(corpus.text("sample", host, TOKENS).blocks(1).tokens)[0]
    sae = SAE(SAEConfig(layer.d_k, layer.d_v, ATOMS, sparsity=TopK(32), target="write-value"))

    def plain() -> None:
        """Forward and backward from the embeddings up, without a tap."""
        embedded = host.model.get_input_embeddings()(text[None]).requires_grad_()
        with host.tap():
            logits = host.model(inputs_embeds=embedded, use_cache=False, logits_to_keep=1).logits
        torch.autograd.grad(logits[0, -1, 5], embedded)

    base = seconds(plain)
    one = seconds(lambda: attribute(host, {site: sae}, text, Logit((5,)), layers=[]))
    every = seconds(lambda: attribute(host, {site: sae}, text, Logit((5,))))
    print(f"forward and backward, {TOKENS} tokens: {base:.3f} s")
    print(f"attribution over {ATOMS} atoms of one head: {one:.3f} s, {one / base:.2f}x")
    print(f"the same and every native write, head and layer: {every:.3f} s, {every / base:.2f}x")


if __name__ == "__main__":
    main()
