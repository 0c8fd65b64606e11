"""What a reproduction found, in sentences: first of all on its page, and in the README."""

from __future__ import annotations

from collections.abc import Sequence

from writesae.reproduce.claims import claim, claims
from writesae.reproduce.rows import Row
from writesae.show import words

READ = {"state": "as published, by its size in the state", "increment": "by how much the token's own write raises it"}


def headline(rows: Sequence[Row]) -> list[str]:
    """What the published protocol gives, what the increment gives, what the known truth says; a sentence each."""
    said, published = [], claim("substitution.pooled")
    wins = [row for row in rows if row.claim == published.id and row.value is not None]
    for reading, how in READ.items():
        first = dict[str, Row]()
        for row in wins:
            if row.what.startswith(f"read by {reading}, after token"):
                first.setdefault(row.host, row)
        if first:
            told = "; ".join(f"{_share(row)} on {host}" for host, row in first.items())
            said.append(f"One atom in the place of one write, read {how}, beats deleting the write in {told}.")
    if said:
        said.append(
            f"Published: {words.percent(published.number('value'))} on {published.host}, read the first way, which was "
            "not measured here."
        )
    facts = {row.what: row for row in rows if row.claim == "known_truth" and row.value is not None}
    if facts:
        host = next(iter(facts.values())).host
        told = "; ".join(f"{what} {_share(row)}" for what, row in facts.items())
        said.append(
            f"Where the truth is known ({host}, facts still right once the write that holds one is replaced): {told}."
        )
    return said


def failures(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """The failures that the paper reports of its own method, and every number of ours beside each."""
    return [(one.id, [row for row in rows if row.claim == one.id]) for one in claims() if one.unmet]


def _share(row: Row) -> str:
    return f"{words.percent(row.value)} ({words.interval(row.interval)})"
