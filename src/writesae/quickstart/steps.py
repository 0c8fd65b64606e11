"""The steps of a quickstart. Each writes its files and returns the few facts that later steps and the summary need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from writesae.artifacts import add_metrics, load_sae, read_manifest
from writesae.config import Json, to_json
from writesae.corpus import TokenBlocks, read_documents, token_blocks
from writesae.disk import make_folder, write_json, write_table
from writesae.errors import InputError
from writesae.evals import spectrum
from writesae.evals.old.atoms import portraits
from writesae.evals.old.substitution import SubstitutionConfig, SubstitutionSummary, contexts, substitution
from writesae.hosts import Host
from writesae.quickstart.config import TARGETS, QuickstartConfig
from writesae.sae import TopK
from writesae.store import capture, open_store
from writesae.training import StepRecord, TrainConfig, train
from writesae.types import Site

Progress = Callable[[int, int], None]
"""Called with (done, total)."""

AUDIT_PASSAGES = 8
HELD_OUT = 0.2
"""Share of every document, at its end, that no dictionary is trained on."""


@dataclass(frozen=True)
class Text:
    """The corpus, split so that tests never see training text."""

    train: TokenBlocks
    test: Tensor
    """`[passages, T]`, drawn over all documents."""


def load_text(host: Host, config: QuickstartConfig) -> Text:
    """Cut the sample into blocks and split every document; raises InputError where it is too short."""
    blocks = token_blocks(read_documents("sample"), host.tokenizer, config.length, None)
    rank = np.concatenate([np.arange(n) / n for n in np.unique(blocks.document, return_counts=True)[1]])
    rng = np.random.default_rng(config.seed)
    train, test = (rng.permutation(np.flatnonzero(part)) for part in (rank < 1 - HELD_OUT, rank >= 1 - HELD_OUT))
    wanted = -(-config.tokens // config.length)
    if wanted > len(train) or config.passages > len(test):
        raise InputError(
            f"the sample holds {len(train) * config.length:,} training tokens and {len(test)} held-out passages of "
            f"{config.length} tokens for {config.host}; {config.tokens:,} and {config.passages} were asked for"
        )
    chosen = np.sort(train[:wanted])
    return Text(
        TokenBlocks(blocks.tokens[chosen], blocks.documents, blocks.document[chosen]),
        torch.from_numpy(blocks.tokens[np.sort(test[: config.passages])]),
    )


def audit(run: Path, host: Host, text: Text, config: QuickstartConfig, progress: Progress) -> Json:
    """Audit every head and choose the site."""
    result = spectrum(host, text.test[:AUDIT_PASSAGES], seed=config.seed, progress=progress)
    site = config.site or Site.parse(result.summary.default_site)
    write_table(run / "spectrum.parquet", result.records)
    return {"site": str(site), "n": result.config.writes, "timing": result.config.timings[0]}


@dataclass(frozen=True)
class Chain:
    """What every step after the audit works on."""

    run: Path
    host: Host
    text: Text
    config: QuickstartConfig
    site: Site


def capture_streams(on: Chain, progress: Progress) -> Json:
    """Record the site's layer over the training text."""
    store = capture(on.host, on.text.train, [on.site.layer], on.run / "streams.zarr", progress=progress)
    return {"tokens": store.sequences * store.length, "corpus": on.text.train.hash, "store": store.hash}


def train_target(on: Chain, name: str, progress: Progress) -> Json:
    """Train one dictionary, which is then in `train/<name>/sae`."""
    steps = max(1, on.config.train_tokens // on.config.batch)
    recipe = TrainConfig(
        site=on.site,
        target=TARGETS[name],
        features=on.config.features,
        sparsity=TopK(on.config.k),
        steps=steps,
        batch=on.config.batch,
        lr=3e-3,
        lr_end=3e-4,
        init="writes",
        validation=0.1,
        validate_every=max(1, steps // 8),
        seed=on.config.seed,
    )
    store = open_store(on.run / "streams.zarr")
    result = train(store, recipe, on.run / "train" / name, [_Bar(progress, steps)])
    manifest = read_manifest(on.run / "train" / name / "sae")
    metrics: dict[str, Json] = asdict(result.metrics)
    return {"metrics": metrics, "sha256": manifest.files["weights.safetensors"].sha256}


@dataclass(frozen=True)
class _Bar:
    """Shows a training run's records as progress."""

    progress: Progress
    steps: int

    def record(self, record: StepRecord) -> None:
        self.progress(record.step, self.steps)

    def close(self) -> None:
        self.progress(self.steps, self.steps)


def test_target(on: Chain, name: str, progress: Progress) -> Json:
    """The substitution test of one dictionary, both protocols."""
    sae = load_sae(on.run / "train" / name / "sae")
    settings = SubstitutionConfig(firings=on.config.firings, seed=on.config.seed)
    result = substitution(on.host, sae, on.site, on.text.test, settings, progress)
    records = result.records
    records["context"] = contexts(on.host, on.text.test, records.passage.tolist(), records.position.tolist())
    records["token_text"] = [on.host.text([token]) for token in records.token]
    make_folder(on.run / "substitution")
    write_table(on.run / "substitution" / f"{name}.parquet", records)
    by_protocol: dict[str, Json] = {timing: _summary(s) for timing, s in result.summaries.items()}
    main = settings.timings[0]
    add_metrics(on.run / "train" / name / "sae", {"substitution": by_protocol})
    return {**_summary(result.main), "protocol": main, "by_protocol": by_protocol, "settings": to_json(settings)}


def _summary(summary: SubstitutionSummary) -> dict[str, Json]:
    record = asdict(summary)
    return {key: list(value) if key.startswith("interval") else value for key, value in record.items()}


def describe_atoms(on: Chain, name: str, progress: Progress) -> Json:
    """Portraits of the strongest atoms of one dictionary."""
    sae = load_sae(on.run / "train" / name / "sae")
    found = portraits(
        on.host, sae, on.site, on.text.test, atoms=on.config.atoms, seed=on.config.seed, progress=progress
    )
    make_folder(on.run / "atoms")
    write_json(on.run / "atoms" / f"{name}.json", [_rounded(asdict(atom)) for atom in found], finite=False)
    return {"atoms": len(found)}


def _rounded(x: object) -> Json:
    """Numbers with six significant digits: enough for a picture, and a fraction of the file."""
    if isinstance(x, float):
        return float(f"{x:.6g}")
    if isinstance(x, dict):
        return {str(key): _rounded(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
        return [_rounded(value) for value in x]
    assert x is None or isinstance(x, bool | int | str)
    return x
