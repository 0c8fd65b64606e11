"""What fires where: a dictionary's features at each token of a text, with the tokens that their atoms stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd
import torch

from writesae.calls import worded
from writesae.causal.closed_form import direct_path
from writesae.causal.identity import check_reading, measured_line, measured_on
from writesae.causal.writes import stream_writes
from writesae.config import Json
from writesae.edits.dictionaries import Allow, check_choice, check_model, place
from writesae.edits.generation import Prompts, encode_text
from writesae.hosts import Host
from writesae.sae import SAE, Factored
from writesae.show.sheet import Listing, Sheet, Span, shows_itself
from writesae.show.words import visible_token
from writesae.types import NativeWrite, ReadAs, Reading, Site

AT_ONCE = 64
"""Atoms whose logits over the vocabulary are held at once."""


@shows_itself
@dataclass(frozen=True)
class TokenCodes:
    """The features that fire at each token, the strongest first."""

    site: Site
    texts: tuple[str, ...]
    """Every token's text."""
    records: pd.DataFrame = field(repr=False)
    """One row a firing: `position`, `token` (its text), `feature`, `value`, and `words`, the tokens that the atom
    promotes most by the direct path `W_U W_O w` (none for a dictionary whose atoms are not of rank 1)."""
    top: int = 3
    """Features a token that are shown."""
    reading: ReadAs = "state"
    """How the dictionary was read."""
    overruled: tuple[str, ...] = ()
    """What does not fit between the model and the dictionary, and was allowed."""
    measured_on: Mapping[str, Json] = field(default_factory=dict, repr=False)
    """The model's name, revision, dtype and device, the dictionary, and the versions of what ran them."""

    def to_json(self) -> Json:
        """The tokens, every firing, and what was measured on."""
        return {
            "site": str(self.site),
            "texts": list(self.texts),
            "records": [
                {str(name): list(value) if name == "words" else value for name, value in row.items()}
                for row in self.records.to_dict("records")
            ],
            "overruled": list(self.overruled),
            "measured_on": dict(self.measured_on),
        }

    def sheet(self) -> Sheet:
        """A token a line with its strongest features."""
        rows = []
        for position, text in enumerate(self.texts):
            spans: list[Span] = []
            for fired in self.records[self.records.position == position].head(self.top).to_dict("records"):
                words = ", ".join(visible_token(word) for word in fired["words"])
                spans += [Span("; " * bool(spans)), Span(str(fired["feature"]), "strong")]
                spans += [Span(f" {fired['value']:.3g}"), Span(f" ({words})" * bool(words), "soft")]
            rows.append((str(position), visible_token(text), tuple(spans) or "nothing fires"))
        how = ", read by increment" * (self.reading == "increment")
        named = f"{self.site}{how}: feature, coefficient (tokens it promotes)"
        lines = ((Span(f"allowed mismatch: {what}", "strong"),) for what in self.overruled)
        origin = (Span(measured_line(self.measured_on), "soft"),)
        return Sheet((Listing(("position", "token", named), rows), origin, *lines))


@worded
def codes(
    model: Host,
    sae: SAE,
    text: Prompts,
    *,
    site: Site | str | None = None,
    top: int = 3,
    words: int = 3,
    reading: Reading = "state",
    native_write: NativeWrite = "delta",
    allow: Allow = (),
) -> TokenCodes:
    """What fires at each token of a text (words or token ids), by value, with each atom's strongest tokens.

    `top` features a token are shown (all are in `records`), with `words` tokens each. A dictionary of states can be
    read by `increment`: the features that the token's own write (in this form) raises most, by how much, as many as are
    active in the state. Raises InputError for a dictionary that does not fit its head (other weights or another head
    unless `allow="mismatch"`), or an empty text.
    """
    at, sae, overruled = place(check_model(model), sae, site, allow=allow)
    check_reading(check_choice("reading", reading, Reading), [sae])
    tokens = encode_text(model, text)
    stream = model.record(torch.tensor([tokens]), [at.layer])[at.layer].heads(at.head)
    found = stream_writes(stream).read(sae, reading, native_write)
    value, order = found.value[0].sort(descending=True, stable=True)
    feature = found.index[0].gather(1, order)
    position, place_ = (value > 0).nonzero(as_tuple=True)
    texts = tuple(model.text([i]) for i in tokens)
    fired = feature[position, place_].tolist()
    promoted = atom_words(model, sae, at, sorted(set(fired)), words)
    records = pd.DataFrame(
        {
            "position": position.tolist(),
            "token": [texts[p] for p in position.tolist()],
            "feature": fired,
            "value": value[position, place_].tolist(),
            "words": [promoted[f] for f in fired],
        }
    )
    how: ReadAs = reading if sae.target == "state" else "write"
    return TokenCodes(at, texts, records, top, how, overruled, measured_on(model, {at: sae}))


@torch.no_grad()
def atom_words(model: Host, sae: SAE, site: Site, features: list[int], count: int) -> dict[int, tuple[str, ...]]:
    """Feature -> the tokens that its atom promotes most by the direct path; none where atoms are not of rank 1."""
    if not isinstance(sae.config.decoder, Factored) or sae.config.decoder.rank != 1:
        return dict.fromkeys(features, ())
    w, found = sae.atoms().w, dict[int, tuple[str, ...]]()
    for begin in range(0, len(features), AT_ONCE):
        part = features[begin : begin + AT_ONCE]
        best = direct_path(model, site, w[part]).topk(min(count, model.vocabulary)).indices.tolist()
        found |= {f: tuple(model.text([i]) for i in ids) for f, ids in zip(part, best, strict=True)}
    return found
