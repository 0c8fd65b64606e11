"""A finished reproduction as a release, ready to push: the tree of the paper's own repository.

    writesae/HOST/L9.H4[-s1]/     dictionaries of states and, with another ending, of writes
    flat_baseline/HOST_L9.H4/     flat ones
    results/GROUP/HOST/NAME/      the results of a group of claims: summaries and Parquet; rows.json: the claims' rows
    manifest.json, collection.json, MODEL_CARD.md, README.md, LOAD_EXAMPLE.py, LICENSE

`results/logit_shift/HOST/logit_shift-states/records.parquet` holds every predicted change of a logit beside the
measured one, by passage, place, atom, size and token.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from writesae.artifacts import load_folder, save_sae, write_index
from writesae.artifacts.collection import cell_folders
from writesae.artifacts.folder import content
from writesae.artifacts.manifest import MANIFEST, Listed, Release, library_version, read_manifest
from writesae.config import to_json
from writesae.disk import FileEntry, files_under, new_folder, write_json, write_text
from writesae.errors import InputError
from writesae.evals.common.result import PARTS, plain
from writesae.reproduce.bindings import BINDINGS
from writesae.reproduce.claims import claims
from writesae.reproduce.config import ReproduceConfig
from writesae.reproduce.page import line
from writesae.reproduce.plainly import headline
from writesae.reproduce.rows import Row
from writesae.reproduce.run import asked_of, folder_of
from writesae.training.folder import DICTIONARY

GROUPS: Mapping[str, tuple[str, ...]] = {
    "92pct_substitution": ("substitution", "firing_order"),
    "89pct_population": ("population", "all_heads", "causal_axes", "native_norm_inversion"),
    "partition": ("partition", "class_distribution", "seeds", "sparsity_family"),
    "logit_shift": ("logit_shift",),
    "edits": ("edit",),
    "fidelity": ("fidelity", "passage_nll"),
    "encoders_and_ranks": ("encoder_swap", "dead_features", "rank2", "k_sweep"),
    "flat_svd": ("flat_svd",),
    "cross_architecture": ("hosts", "spectral_audit"),
    "uniqueness": ("selectivity", "readers", "known_truth"),
}
"""Folder of results -> claims, or how they begin. The first two names are the published release's, the others ours."""
TREE = {
    "states": "writesae/{host}/{site}", "writes": "writesae/{host}/{site}-writes",
    "flat": "flat_baseline/{host}_{site}",
}  # fmt: skip
"""Kind of dictionary -> its folder."""
EXAMPLE = '''"""Open every dictionary of this release: JSON and safetensors are read, and no code of the files runs.

    pip install writesae
    python LOAD_EXAMPLE.py
"""

from pathlib import Path

import writesae as ws
from writesae.artifacts import read_collection

HERE = Path(__file__).parent

for cell in read_collection(HERE).cells:
    sae = ws.load_sae(HERE, host=cell.host, site=cell.site, variant=cell.variant, seed=cell.seed)
    print(cell, "of the", cell.target, f"{cell.features} features of {sae.config.d_k} x {sae.config.d_v}")
'''


def release(config: ReproduceConfig, out: Path, folder: Path, rows: Sequence[Row]) -> Path:
    """Write the release of the reproduction in `out` into a new folder; it appears whole or not at all.

    Raises OutputError for a folder that holds something, InputError where nothing of the reproduction was trained.
    """
    with new_folder(folder) as partial:
        for name in asked_of(config):
            _dictionaries(folder_of(out, name) / "train", partial)
            _results(folder_of(out, name) / "results", partial / "results", name.replace("/", "--"))
        if not cell_folders(partial):
            raise InputError(f"{out} holds no dictionary that a release could be made of: reproduce more claims")
        for group, names in GROUPS.items():
            own = [row for row in rows if _begins(row.claim, names)]
            if own:
                write_json(partial / "results" / group / "rows.json", {"rows": plain(own)})
        shutil.copyfile(Path(__file__).parent / "templates" / "LICENSE", partial / "LICENSE")
        write_text(partial / "LOAD_EXAMPLE.py", EXAMPLE)
        write_text(partial / "MODEL_CARD.md", card(config, rows))
        listed = tuple(_listed(partial))
        write_json(partial / MANIFEST, to_json(Release(library=library_version(), files=listed)))
        write_index(partial)
    return folder


def _dictionaries(train: Path, root: Path) -> None:
    """Those of states, of writes and flat ones, at every head and of every seed."""
    for run in sorted(train.glob("*")):
        kind = run.name.partition("-")[0]
        if kind not in TREE or not (run / DICTIONARY / MANIFEST).exists():
            continue
        loaded = load_folder(run / DICTIONARY)
        record = loaded.manifest.record
        if kind == "writes":  # another cell than the dictionary of states of the same head
            record = replace(record, variant=f"{record.variant}-writes")
        place = TREE[kind].format(host=str(record.host).replace("/", "--"), site=record.site)
        save_sae(loaded.sae, root / (place + (f"-s{record.seed}" if record.seed else "")), record)


def _results(results: Path, root: Path, host: str) -> None:
    """Every result in the first group whose claims ask for it."""
    for group, names in GROUPS.items():
        asked = [name for one in BINDINGS if _begins(one.claim, names) for name in one.asks]
        for found in sorted(path.parent for path in results.glob("*/summary.json")):
            mine = any(found.name == name or found.name.rpartition("-")[0] == name for name in asked)
            if mine and not list(root.glob(f"*/{host}/{found.name}")):
                shutil.copytree(found, root / group / host / found.name, ignore=shutil.ignore_patterns(PARTS))


def _begins(name: str, beginnings: Sequence[str]) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in beginnings)


def _listed(root: Path) -> Iterator[Listed]:
    """Every file with what it is; of a dictionary what it is loaded from, as its card does not come back from a Hub."""
    cells = {path: read_manifest(path) for path in cell_folders(root)}
    for path in files_under(root):
        cell = path.parent if path.parent in cells else None
        if cell is not None and path.name not in (*content(cells[cell]), MANIFEST):
            continue
        name, entry = path.relative_to(root).as_posix(), FileEntry.of(path)
        about = DESCRIBED.get(path.name, DESCRIBED.get(path.suffix, path.name))
        yield Listed(sha256=entry.sha256, size=entry.size, path=name, description=about)


DESCRIBED = {
    "config.json": "what the dictionary is", "weights.safetensors": "its weights", MANIFEST: "its files and origin",
    "rows.json": "the claims of this folder: published, here, interval, verdict",
    "summary.json": "a result: settings, origin, numbers", ".parquet": "records that a result follows from",
    "LICENSE": "MIT", "LOAD_EXAMPLE.py": "opens every dictionary", "MODEL_CARD.md": "what was done and what was found",
    ".safetensors": "hashes of the text that the dictionary was trained on",
}  # fmt: skip


def card(config: ReproduceConfig, rows: Sequence[Row]) -> str:
    """What was done and what was found, in Markdown."""
    sizes, hosts = config.sizes, ", ".join(asked_of(config))
    lines = ["# Dictionaries of recurrent states, and what they were tested for", "", *headline(rows), ""]
    lines += ["## How they were made", "", f"- Hosts: {hosts}; their weights are not part of this release."]
    lines += [f"- Text: {sizes.corpus}, {sizes.tokens:,} tokens captured for training (passages of facts, where a host "
              "has learnt facts); other documents are tested on."]  # fmt: skip
    lines += [f"- Training: {sizes.train_tokens:,} tokens a dictionary, batches of {sizes.batch:,}, "
              f"{sizes.features:,} features, k = {sizes.k}; {sizes.seeds} seeds at the main head."]  # fmt: skip
    lines += ["- Not made by the paper's author: a reproduction of arXiv:2605.12770 on other hosts, with writesae."]
    lines += ["", "## Claims", "", "| claim | host | which | published | here | 95 % | n | verdict |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for row in rows:
        if row.verdict is not None:
            published = "" if row.published is None else f"{row.published:g}"
            here = line(row)
            cells = (row.claim, row.host, row.what, published, here.number, here.bounds, str(row.n or ""), row.verdict)
            lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    about = [f"- `{one.id}`: {one.text} ({one.where})." for one in claims() if any(row.claim == one.id for row in rows)]
    return "\n".join([*lines, "", *about, "", "MIT licence.", ""])
