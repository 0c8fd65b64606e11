"""Run the probes of editing at full size, and write `result.json`, `records.parquet` and `plot.html`.

    python benchmarks/edit_experiments.py sign    --host tiny-gdn --sites L5.H0 --n 2000 --out out/sign
    python benchmarks/edit_experiments.py install --host tiny-gdn --sites all   --n 300  --out out/install
    python benchmarks/edit_experiments.py erasure --dictionary runs/L5.H0 --feature 3 --out out/erasure
    python benchmarks/edit_experiments.py amplify --dictionary runs/L5.H0 --n 40 --pattern "[.!?]$" --out out/amplify

`--host tiny:mamba2` is a random model of `writesae.hosts.tiny` on random tokens.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from writesae.artifacts import load_sae
from writesae.corpus import read_documents, token_blocks
from writesae.edits.experiments import (
    AmplificationConfig,
    InstallSweep,
    SignConfig,
    amplification,
    erasure,
    install_sweep,
    sign_test,
    tokens_matching,
)
from writesae.edits.experiments.pictures import Result, table, write_result
from writesae.hosts import Host, load_host
from writesae.hosts.tiny import build_tiny
from writesae.types import Protocol, Site


def open_host(name: str) -> Host:
    """A host by name, or a random tiny one."""
    return load_host(build_tiny(name.removeprefix("tiny:"))) if name.startswith("tiny:") else load_host(name)


def texts(host: Host, name: str, count: int, length: int) -> Tensor:
    """Held-out texts, or random tokens for a random model."""
    if name.startswith("tiny:"):
        return torch.randint(3, host.vocabulary, (count, length), generator=torch.Generator().manual_seed(0))
    return torch.from_numpy(token_blocks(read_documents("sample"), host.tokenizer, length, count).tokens)


def measure(flags: argparse.Namespace) -> Result:
    """Run the probe that was asked for."""
    host = open_host(flags.host)
    sites = host.sites if flags.sites == "all" else [Site.parse(s) for s in flags.sites.split(",")]
    magnitudes = tuple(float(m) for m in flags.magnitudes.split(","))
    low, high = (int(r) for r in flags.ranks.split(","))
    timing: Protocol = flags.timing
    if flags.probe == "sign":
        config = SignConfig(magnitudes, ranks=(low, high))
        return sign_test(host, sites[0], texts(host, flags.host, flags.n, flags.length), config)
    if flags.probe == "install":
        sweep = InstallSweep(magnitudes=magnitudes, ranks=((low, high),), timing=timing)
        return install_sweep(host, sites, texts(host, flags.host, flags.n, flags.length), sweep)
    sae = load_sae(flags.dictionary, site=sites[0])
    passages = texts(host, flags.host, 64, 256)
    if flags.probe == "erasure":
        return erasure(host, sae, sites[0], flags.feature, passages)
    prompts = texts(host, flags.host, flags.n, flags.length)
    ids = tokens_matching(host, flags.pattern)
    return amplification(host, sae, sites[0], passages, prompts, ids, AmplificationConfig(new_tokens=flags.new_tokens))


def main() -> None:
    """Measure, print the table, write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("probe", choices=["sign", "install", "erasure", "amplify"])
    parser.add_argument("--host", default="tiny-gdn")
    parser.add_argument("--sites", default="L5.H0", help="L5.H0, a comma-separated list, or all")
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--length", type=int, default=24, help="tokens a context or prompt")
    parser.add_argument("--magnitudes", default="0.1,1,3")
    parser.add_argument("--ranks", default="0,1", help="ranks of the targets, the second excluded")
    parser.add_argument("--timing", default="after_token", choices=["after_token", "at_token"])
    parser.add_argument("--dictionary")
    parser.add_argument("--feature", type=int, default=0)
    parser.add_argument("--pattern", default=r"\n")
    parser.add_argument("--new-tokens", type=int, default=400)
    parser.add_argument("--out", type=Path, required=True)
    flags = parser.parse_args()
    torch.set_num_threads(1)
    result = measure(flags)
    print(table(result).to_string())
    write_result(result, flags.out)


if __name__ == "__main__":
    main()
