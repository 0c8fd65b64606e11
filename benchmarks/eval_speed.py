"""The forked-run substitution against the cache-copy protocol: the same firings, the same machine, both KLs.

    PYTHONPATH=tests python benchmarks/eval_speed.py [--host tiny-gdn|tiny-mamba2|qwen3.5-0.8b-shaped] [--firings 200]

The slow protocol runs each firing's prefix, deep-copies the cache once a condition, edits the state in the copy and
feeds the next token (`slow_protocol`). Both score the same five conditions: the atom and a random matrix at both
amplitudes, and deletion, of the delta write after the token. `qwen3.5-0.8b-shaped` has that
model's sizes and random weights (3 GB of memory, minutes on a CPU).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

import torch
import tyro
from transformers.models.qwen3_5 import Qwen3_5ForCausalLM, Qwen3_5TextConfig

from slow_protocol import cache_copy_logits
from writesae.causal.divergence import kl_divergence
from writesae.corpus import text
from writesae.evals import substitution
from writesae.hosts import Host, load
from writesae.recurrence import delta_values
from writesae.sae import SAE, SAEConfig, TopK
from writesae.types import Site

SITES = {"tiny-gdn": "L5.H0", "tiny-mamba2": "L2.H0", "qwen3.5-0.8b-shaped": "L9.H4"}


@dataclass(frozen=True)
class Options:
    """Measure scored firings a second, five conditions each."""

    host: Literal["tiny-gdn", "tiny-mamba2", "qwen3.5-0.8b-shaped"] = "tiny-gdn"
    """An embedded host, or random weights in the sizes of Qwen3.5-0.8B."""
    site: str | None = None
    """Head; in the middle of the model if not said."""
    firings: int = 200
    """Firings for the fast path."""
    slow_firings: int = 20
    """How many of them the slow protocol repeats."""
    passages: int = 4
    """Passages that the firings are drawn from."""
    length: int = 256
    """Tokens a passage."""
    threads: int = 1
    """CPU threads."""


def qwen_shaped() -> Host:
    """Random weights in the sizes of Qwen3.5-0.8B's language model."""
    config = Qwen3_5TextConfig(
        hidden_size=1024, intermediate_size=3584, num_hidden_layers=24, num_attention_heads=8, num_key_value_heads=2,
        head_dim=256, linear_num_key_heads=16, linear_num_value_heads=16, linear_key_head_dim=128,
        linear_value_head_dim=128, vocab_size=248320, tie_word_embeddings=True, initializer_range=0.06,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen3_5ForCausalLM(config).float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("A_log"):  # heads that remember, so that an edit does something
                parameter.uniform_(0.02, 0.2).log_()
    return load(model)


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    shape = options.host == "qwen3.5-0.8b-shaped"
    host = qwen_shaped() if shape else load(options.host)
    site = Site.parse(options.site or SITES[options.host])
    if shape:
        generator = torch.Generator().manual_seed(1)
        tokens = torch.randint(host.vocabulary, (options.passages, options.length), generator=generator)
    else:
        blocks = text("sample", host, options.length).blocks(options.passages)
        tokens = torch.from_numpy(blocks.tokens)
    layer = host.check_site(site)
    generator = torch.Generator().manual_seed(2)
    sae = SAE(SAEConfig(layer.d_k, layer.d_v, 512, sparsity=TopK(16), target="write-delta"), generator)

    for firings in (2, options.firings):  # what happens once, imports and the hash of the weights, is done before
        begin = time.perf_counter()
        result = substitution(
            host, sae, tokens, site=site, timings="after_token", native_writes="delta", firings=firings
        )
    fast = result.n / (time.perf_counter() - begin)

    by = {size: own.reset_index(drop=True) for size, own in result.records.groupby("amplitude")}
    some = (
        by["coefficient"]
        .assign(kl_resized=by["norm"].kl_atom)
        .sample(min(options.slow_firings, result.n), random_state=0)
    )
    stream = host.record(tokens, [site.layer])[site.layer].heads(site.head)
    update, atoms = delta_values(stream)[0], sae.atoms()
    compared, worst, begin = 0, 0.0, time.perf_counter()
    for row in some.itertuples():
        write = torch.outer(stream.key[row.passage, row.position, 0], update[row.passage, row.position, 0])
        atom = torch.outer(atoms.v[row.feature], atoms.w[row.feature])
        noise = torch.outer(torch.randn(layer.d_k), torch.randn(layer.d_v))
        size = atom.norm() * row.coefficient
        edits = [
            row.coefficient * atom - write,
            atom * write.norm() / atom.norm() - write,
            -write,
            noise * size / noise.norm() - write,  # drawn anew: these two cost time and are not compared
            noise * write.norm() / noise.norm() - write,
        ]
        native, patched = cache_copy_logits(host, tokens[row.passage], site, row.position, edits, "after_token")
        for name, logits in zip(("atom", "resized", "delete"), patched, strict=False):
            kl = kl_divergence(native[0], logits[0]).item()
            rounding = 2e-6 * (2 * kl) ** 0.5  # float32 logits: noise of spread e adds e sqrt(2 KL)
            if kl > 1e-9:  # below that float32 logits say nothing
                compared += 1
                worst = max(worst, (abs(getattr(row, f"kl_{name}") - kl) - rounding) / kl)
    slow = len(some) / (time.perf_counter() - begin)

    print(f"{options.host} {site}, {options.passages} passages of {options.length} tokens, {options.threads} thread(s)")
    print("| protocol | firings | firings a second (5 conditions) |")
    print("|---|---:|---:|")
    print(f"| cache copied | {len(some)} | {slow:.2f} |")
    print(f"| forked runs | {result.n} | {fast:.2f} |")
    print(f"ratio {fast / slow:.1f}x; largest relative difference of {compared} KLs beyond rounding {worst:.1e}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
