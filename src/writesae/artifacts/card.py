"""The model card (`README.md`) of a dictionary, made from its record and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping

from writesae.config import Json, to_json
from writesae.sae import Record, SAEConfig

_MOST_ROWS = 40


def model_card(config: SAEConfig, record: Record) -> str:
    """Markdown with the Hub's metadata block: what the dictionary is, where it comes from, what was measured."""
    kind = f"{config.features:,} features of {config.d_k} x {config.d_v} matrices ({config.target})"
    lines = ["---", "library_name: writesae", "tags:", "- sparse-autoencoder", "- recurrent-state"]
    if record.host is not None and "/" in record.host:
        lines += [f"base_model: {json.dumps(record.host)}"]
    lines += ["---", "", f"# {_title(record)}", "", f"A sparse dictionary: {kind}."]
    lines += ["", "```python", "import writesae as ws", "", 'sae = ws.load_sae("PATH_OR_REPO")', "```"]
    origin: dict[str, Json] = {
        "host": record.host,
        "host revision": record.host_revision,
        "site": None if record.site is None else str(record.site),
        "seed": record.seed,
        "corpus": record.corpus,
        "corpus hash": record.corpus_hash,
        "store hash": record.store_hash,
    }
    for title, values in (
        ("Origin", {name: value for name, value in origin.items() if value is not None}),
        ("Measured", _flat(dict(record.metrics))),
        ("Training", _flat(dict(record.training))),
        ("Source", _flat(dict(record.source))),
    ):
        if values:
            rows = [f"| {_cell(name)} | {_cell(value)} |" for name, value in values.items()]
            lines += ["", f"## {title}", "", "| | |", "|---|---|", *rows]
    return "\n".join([*lines, "", "## Config", "", "```json", json.dumps(to_json(config), indent=2), "```", ""])


def collection_card(index: dict[str, Json], results: Mapping[str, Json] | None = None) -> str:
    """The card of a collection: one row a dictionary, and the numbers of its result files."""
    lines = ["---", "library_name: writesae", "tags:", "- sparse-autoencoder", "- recurrent-state", "---", ""]
    lines += ["# Dictionaries of recurrent states", "", "```python", "import writesae as ws", ""]
    lines += ['sae = ws.load_sae("PATH_OR_REPO", site="L9.H4")', "```", ""]
    columns = ["host", "site", "variant", "seed", "target", "features", "path"]
    lines += [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    cells = index["cells"]
    for cell in cells if isinstance(cells, list) else []:
        if isinstance(cell, dict):
            lines.append("| " + " | ".join(_cell(cell.get(column, "")) for column in columns) + " |")
    for name, data in (results or {}).items():
        values = list(_flat(data).items()) if isinstance(data, dict) else []
        if values:
            rows = [f"| {_cell(key)} | {_cell(value)} |" for key, value in values[:_MOST_ROWS]]
            rest = [f"| .. | {len(values) - _MOST_ROWS} more |"] if len(values) > _MOST_ROWS else []
            lines += ["", f"## {_cell(name)}", "", "| | |", "|---|---|", *rows, *rest]
    return "\n".join([*lines, ""])


def _title(record: Record) -> str:
    parts = [record.variant or "Dictionary", record.host and f"of {record.host}", record.site and str(record.site)]
    return " ".join(part for part in parts if part)


def _flat(data: dict[str, Json], prefix: str = "") -> dict[str, Json]:
    rows: dict[str, Json] = {}
    for name, value in data.items():
        if isinstance(value, dict):
            rows |= _flat(value, f"{prefix}{name}.")
        elif not isinstance(value, list) or len(value) <= 8:
            rows[prefix + name] = value
    return rows


def _cell(value: Json) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
