"""`proper_nouns`: which tokens are names, contexts that end before them, and verdicts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import writesae as ws
from writesae.errors import InputError
from writesae.evals import proper_nouns
from writesae.evals.proper_nouns.measure import contexts_before, name_tokens
from writesae.hosts import Host


def test_names_are_told_from_words_and_contexts_end_before_them(host: Host, passages: torch.Tensor) -> None:
    names, words = name_tokens(host)
    ids = {word: host.tokenizer.encode(word)[0] for word in (" America", " Congress", " The", " war", " people")}
    assert ids[" America"] in names
    assert not {ids[" The"], ids[" war"]} & names
    assert not names & words
    rows, contexts, targets = contexts_before(passages, names | words, 11)
    assert contexts.shape == (len(rows), 11)
    for row, context, target in zip(rows, contexts, targets, strict=True):
        place = next(t for t in range(11, 53) if int(passages[row, t]) in names | words)
        assert torch.equal(passages[row, place - 11 : place], context)
        assert passages[row, place] == target
    assert len(rows) == sum(any(int(t) in names | words for t in row[11:]) for row in passages)
    none = contexts_before(passages, frozenset({4095}), 11)
    assert (none[0], none[1].shape, none[2].shape) == ([], (0, 11), (0,))


def test_they_are_installed_and_erased(host: Host) -> None:
    text = ws.text("sample", host, length=40).draw(60, 1)
    result = proper_nouns(
        host, text, site="L5.H1", contexts=11, prompt=9, directions=("exact", "random"), magnitudes=(-4.0, 0.0, 4.0),
        new_tokens=2, timings="at_token",
    )  # fmt: skip
    rows = {(r.targets, r.direction, r.magnitude): r for r in result.summary.cells}
    assert len(rows) == 2 * 2 * 3
    assert (result.n, result.summary.names) == (22, len(name_tokens(host)[0]))
    for key, row in rows.items():
        part = result.records.query("targets == @key[0] and direction == @key[1] and magnitude == @key[2]")
        assert row.rate == pytest.approx(part["included"].mean())
        assert (row.lift.n, part.passage.nunique(), np.isnan(row.p_words)) == (11, 11, key[0] == "word")
        if key[2] == 0:
            assert (row.rate, row.lift.mean, row.p, row.lift.above, row.verdict) == (row.native, 0, 1, 0, "undecided")
    for kind in ("name", "word"):
        assert rows[kind, "exact", 4.0].lift.mean > 0 > rows[kind, "exact", -4.0].lift.mean
    with pytest.raises(InputError, match="60 passages of 40 tokens hold"):
        proper_nouns(host, text, site="L5.H1", contexts=61, prompt=9)
    with pytest.raises(InputError, match="margin 0 is no share"):
        proper_nouns(host, text, site="L5.H1", margin=0.0)
    with pytest.raises(InputError, match="3 last tokens of prompts of 2"):
        proper_nouns(host, text, site="L5.H1", prompt=2)
