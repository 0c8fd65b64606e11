"""Contexts before names and before ordinary words, and what writing their next token does."""

from __future__ import annotations

import re
from functools import partial

import pandas as pd
import torch
from torch import Tensor

from writesae.errors import InputError
from writesae.evals.common.installing import PIECE, batches, check_last, natively, trials
from writesae.evals.common.pieces import Keep, Measured, concatenated, passage_groups
from writesae.evals.common.subject import Subject
from writesae.evals.proper_nouns import ProperNounsConfig
from writesae.hosts import Host


def measure(subject: Subject, config: ProperNounsConfig, keep: Keep) -> Measured:
    """A record is a continuation. Raises InputError where the passages hold too few names or words, or the host's
    tokens none."""
    host, tokens = subject.host, subject.tokens
    check_last((config.last,), config.prompt)
    classes = dict(zip(("name", "word"), name_tokens(host), strict=True))
    cut = {name: contexts_before(tokens, ids, config.prompt) for name, ids in classes.items()}
    for name, (passages, *_) in cut.items():
        if len(passages) < config.contexts:
            raise InputError(
                f"{len(tokens)} passages of {tokens.shape[1]} tokens hold {len(passages)} {name}s after "
                f"{config.prompt} tokens, and {config.contexts} contexts were asked for: ask for fewer, or give more "
                "passages, or longer ones"
            )
    groups = list(passage_groups(config.contexts, PIECE))
    keep.plan(len(cut) * len(groups))
    tables = []
    for name in cut:
        for begin, end in groups:
            table = keep(f"{name}-{begin}", partial(_piece, subject, config, name, cut[name], begin, end))
            tables.append(table.assign(targets=name, tokens_of_class=len(classes[name])))
    return Measured(concatenated(tables), len(cut) * config.contexts)


def _piece(
    subject: Subject, config: ProperNounsConfig, name: str, cut: tuple[list[int], Tensor, Tensor], begin: int, end: int
) -> pd.DataFrame:
    passages, contexts, targets = cut
    found = []
    for some in batches(subject.host, subject.sites, contexts.shape[1], begin, end):
        part = slice(some.start, some.stop)
        prompts = natively(subject.host, subject.sites, contexts[part], tuple(passages[part]), config.new_tokens)
        found.append(trials(prompts, targets[part], config, (config.last,), name))
    return pd.concat(found, ignore_index=True)


def name_tokens(host: Host) -> tuple[frozenset[int], frozenset[int]]:
    """Token ids of names and of ordinary words.

    A name is a capitalised word of three letters or more whose lower-case spelling is no token (` America`, not
    ` The`); a word is a lower-case one whose capitalised spelling is no token. Raises InputError where there are none.
    """
    texts = {i: host.text([i]) for i in range(len(host.tokenizer))}
    known = set(texts.values())
    names = frozenset(i for i, t in texts.items() if re.fullmatch(" [A-Z][a-z]{2,}", t) and t.lower() not in known)
    words = frozenset(i for i, t in texts.items() if re.fullmatch(" [a-z]{3,}", t) and t.title() not in known)
    if not names or not words:
        raise InputError(
            f"the tokens of {host.name} hold {len(names)} names and {len(words)} words: nothing to compare"
        )
    return names, words


def contexts_before(tokens: Tensor, ids: frozenset[int], length: int) -> tuple[list[int], Tensor, Tensor]:
    """The first place of each passage `[B, T]` where, after `length` tokens or more, a token of these ids comes next:
    the passages that have one, the `length` tokens before it, `[m, length]`, and the token, `[m]`."""
    found = torch.isin(tokens, torch.tensor(sorted(ids)))
    found[:, :length] = False
    passages = found.any(1).nonzero()[:, 0]
    place = found[passages].int().argmax(1) if len(passages) else passages
    contexts = tokens[passages[:, None], place[:, None] + torch.arange(-length, 0)]
    return passages.tolist(), contexts, tokens[passages, place]
