"""Facts are told and asked for; writes are found, taken out, replaced and moved; every answer is a record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from writesae.corpus import Passages
from writesae.corpus.facts import PATTERN, FactPassages, Vocabulary, draw_facts, sentences_in, vocabulary
from writesae.errors import InputError
from writesae.evals.common.identity import provenance
from writesae.evals.common.pieces import Keep, Measured, concatenated
from writesae.evals.common.subject import Subject, check_overlap
from writesae.evals.recall import RecallConfig
from writesae.evals.recall.changed import Answers, Cell, answered, changed, deletion, written_form
from writesae.evals.recall.changes import Change, Kind, changes
from writesae.evals.recall.elsewhere import exchanged, installed
from writesae.evals.recall.located import binding, cells_of, costs, groups_of, located
from writesae.evals.recall.prices import prices, ranked
from writesae.evals.recall.recovery import baseline, bound, recovery, share_of_state, written
from writesae.evals.recall.summary import ALL, BY, MORE
from writesae.hosts import Host
from writesae.hosts.sources import pattern_of
from writesae.sae import SAE
from writesae.types import Site

DRAWN = 3_000_017
"""Of all seeds here: no shipped host and no shipped dictionary was trained on passages drawn with it."""
TOLD, FOUND_ON, PAIRS, WRITES, COUNTED, FAR = range(6)
"""What passages are drawn for."""
PIECE = 16
"""Passages of one piece, each of which is run once a fact."""
CLUSTERED = 8192
"""Writes that the other dictionaries are made of."""


def measure(subject: Subject, config: RecallConfig, keep: Keep) -> Measured:
    """An item is a fact, a record a fact under one change of its writes.

    Raises InputError for a host that does not remember, too few names or things, dictionaries that are not of the
    heads that hold a fact, and such as were trained on the facts.
    """
    host, saes = subject.host, _by_kind(subject)
    host.need_writes()
    words, between = _words(host, config), list[tuple[int, ...]]()
    for row in subject.tokens.tolist():
        between += sentences_in(host.text(row), host.tokenizer, words)
    draw = partial(_draw, words, config)
    told = draw(len(subject.tokens), TOLD)
    check_overlap(
        provenance(host, subject.saes, subject.sites, Passages.of(told.tokens), ()),
        [sae for _, sae in subject.saes], subject.provenance.allowed,
    )  # fmt: skip
    recalled = keep("native", lambda: _native(host, words, config, draw, told, between))
    right = recalled[(recalled.facts == config.facts) & ~recalled.far].right.mean()
    if right < config.least:
        raise InputError(
            f"{host.name} answers {right:.1%} of {config.facts} facts right, told like {words.pattern!r}, and recall "
            f"looks for what holds them: give a host that remembers, fewer facts, or a smaller least ({config.least:g})"
        )
    reach = config.reach or 2 * words.length
    some = draw(config.found_on, FOUND_ON)
    mapped = _map(host, some, config, reach, keep)
    held = keep("binding", lambda: _binding(host, some, mapped, config, reach))
    cells = [Cell.parse(text) for text in held.cell]
    _check_placed(host, saes, cells)

    made_to, parts = partial(changes, host, saes, cells, config, reach), range(0, len(told), PIECE)
    keep.plan(4 * len(parts) + 1 + len(cells) * bool(saes))
    makes: dict[str, Callable[[int, FactPassages], pd.DataFrame]] = {
        "records": lambda begin, part: _records(host, part, made_to(begin), config),
        "exchanged": lambda begin, part: exchanged(host, part, cells, config.timing),
        "installed": lambda begin, part: installed(host, part, cells, config.timing),
        "found": lambda begin, part: _found(host, part, cells, config),
    }
    tables = dict[str, pd.DataFrame]()
    for name, make in makes.items():
        made = []
        for begin in parts:
            table = keep(f"{name}-{begin}", partial(make, begin, told[begin : begin + PIECE]))
            made.append(table.assign(passage=table.passage + begin))
        tables[name] = concatenated(made)
    said = keep("said", lambda: _said(host, told[:1], made_to(0), config))
    learnt = [keep(f"recovery-{cell}", partial(_recovery, host, saes, cell, draw, config)) for cell in cells if saes]
    spelt = mapped.offset.map(_tokens(host, words, reach))
    more = {
        "native": recalled, "map": mapped.assign(token=spelt), "binding": held, "found": tables["found"], "said": said,
        "elsewhere": _spelt(host, concatenated([tables["exchanged"], tables["installed"]])),
        "recovery": concatenated(learnt) if learnt else pd.DataFrame(columns=list(MORE["recovery"])),
    }  # fmt: skip
    shares = {str(cell.site): {str(written_form(host)): float(x)} for cell, x in zip(cells, held.share, strict=True)}
    return Measured(_spelt(host, tables["records"]), told.name.size, {}, more, shares)


def _words(host: Host, config: RecallConfig) -> Vocabulary:
    """The names and things in play."""
    words = vocabulary(host.tokenizer, config.pattern or pattern_of(host.name) or PATTERN)
    return words.first(config.names or len(words.names), config.things or len(words.things))


def _tokens(host: Host, words: Vocabulary, reach: int) -> dict[int, str]:
    """What stands at each token from a name on: of its statement, and of the next one where that follows at once."""
    between, behind = ([host.text([x]).strip(" ") for x in part] for part in (words.between, words.after))
    one, after = ["name", *between, "thing", *behind], ["", "next", "next but one"]
    return {i: f"{after[min(i // len(one), 2)]} {one[i % len(one)]}".strip(" ") for i in range(reach)}


def _draw(
    words: Vocabulary, config: RecallConfig, count: int, purpose: int, facts: int | None = None, **how: Any
) -> FactPassages:
    """Passages of one purpose: facts alone, so that a token of the next statement has its place, unless `how` says
    otherwise."""
    facts = facts or config.facts
    return draw_facts(words, count, facts, (DRAWN, config.seed, purpose, facts), **how)


Draw = Callable[..., FactPassages]


def _native(
    host: Host, words: Vocabulary, config: RecallConfig, draw: Draw, told: FactPassages,
    between: Sequence[tuple[int, ...]],
) -> pd.DataFrame:  # fmt: skip
    """Recall of the passages that are told, of others with more or fewer facts, and of those with sentences between."""
    most = min(len(words.names), len(words.things))
    counts = [facts for facts in config.counts if facts <= most and facts != config.facts]
    drawn = [(told, config.facts, False)]
    drawn += [(draw(len(told), COUNTED, facts), facts, False) for facts in counts]
    drawn += [(draw(len(told), FAR, between=between, gap=config.gap), config.facts, True)]
    tables = []
    for passages, facts, far in drawn:
        answers = answered(host, passages)
        row, fact = np.indices(passages.name.shape)
        columns = {
            "passage": row, "fact": fact, "distance": passages.distance, "nats": answers.nats.numpy(),
            "right": answers.said.numpy() == passages.thing,
        }  # fmt: skip
        table = pd.DataFrame({name: column.flatten() for name, column in columns.items()})
        tables.append(table.assign(facts=facts, far=far))
    return pd.concat(tables, ignore_index=True)


def _map(host: Host, passages: FactPassages, config: RecallConfig, reach: int, keep: Keep) -> pd.DataFrame:
    """What deleting the writes of all heads of a layer costs at each token, and those of single heads; beside it what
    they give the answer to first order."""

    def priced() -> pd.DataFrame:
        exact, _ = prices(host, passages, config.timing)
        cells, begin = cells_of(host, reach), torch.from_numpy(passages.begin)
        row, fact = torch.meshgrid(*(torch.arange(n) for n in begin.shape), indexing="ij")
        tables = []
        for layer, offset in dict.fromkeys((cell.site.layer, cell.offset) for cell in cells):
            each = exact[layer][row, fact, begin + offset]  # [B, F, H]
            for head in (ALL, *range(each.shape[-1])):
                effect = each.sum(-1) if head == ALL else each[..., head]
                own = {"passage": row.flatten(), "fact": fact.flatten(), "exact": effect.flatten()}
                where = {"layer": layer, "head": head, "offset": offset}
                tables.append(pd.DataFrame({k: v.numpy() for k, v in own.items()}).assign(**where))
        return pd.concat(tables, ignore_index=True)

    exact = keep("prices", priced)
    sizes = exact[exact["head"] != ALL].groupby(["layer", "head", "offset"]).exact.mean().abs()
    largest = sizes.sort_values(ascending=False, kind="stable").index[: config.tried]
    single = [[Cell(Site(int(layer), int(head)), int(offset))] for layer, head, offset in largest]
    groups = [group for group in groups_of(host, reach) if len(group) > 1 or group not in single] + single
    layers = sorted({group[0].site.layer for group in groups})
    keep.plan(3 + len(layers))
    tables = []
    for layer in layers:
        own = [group for group in groups if group[0].site.layer == layer]
        tables.append(keep(f"map-{layer}", partial(located, host, passages, own, config.timing)))
    measured = pd.concat(tables, ignore_index=True).drop(columns="said")
    return measured.merge(exact, on=["passage", "fact", "layer", "head", "offset"], how="left")


def _binding(
    host: Host, passages: FactPassages, mapped: pd.DataFrame, config: RecallConfig, reach: int
) -> pd.DataFrame:
    """The writes that hold a fact, and what is left without all of them on the passages that they were found on."""
    if config.cells:
        cells = tuple(Cell.parse(text) for text in config.cells)
        for cell in cells:
            host.check_site(cell.site)
        found = costs(passages, answered(host, passages), changed(host, passages, cells, deletion(host), config.timing))
        right, lost = float(found.right.mean()), float(found.lost.median())
    else:
        cells, right, lost = binding(host, passages, mapped, reach, config.timing)
    shares = [share_of_state(host, passages, cell) for cell in cells]
    return pd.DataFrame({"cell": list(map(str, cells)), "share": shares, "right": right, "lost": lost})


def _by_kind(subject: Subject) -> dict[Kind, dict[Site, SAE]]:
    """The dictionaries of states, and those of writes, by head. Raises InputError for two of one kind and head."""
    kinds = dict[Kind, dict[Site, SAE]]()
    for site, sae in subject.saes:
        kind: Kind = "states" if sae.config.target == "state" else "writes"
        if site in kinds.setdefault(kind, {}):
            raise InputError(f"two dictionaries of {kind} of {site} were given: give one of states and one of writes")
        kinds[kind][site] = sae
    return kinds


def _check_placed(host: Host, saes: Mapping[Kind, Mapping[Site, SAE]], cells: Sequence[Cell]) -> None:
    """Raise InputError where there are dictionaries of a kind, but not of every head that holds a fact."""
    for kind, group in saes.items():
        missing = sorted({cell.site for cell in cells} - set(group))
        if missing:
            raise InputError(
                f"a fact is held by {', '.join(map(str, cells))} of {host.name}, and there is no dictionary of "
                f"{', '.join(map(str, missing))} among those of {kind} ({', '.join(map(str, group))}): give one "
                "of each, or none"
            )


def _records(host: Host, passages: FactPassages, made: Sequence[Change], config: RecallConfig) -> pd.DataFrame:
    before, tables = answered(host, passages), []
    for change in made:
        after = changed(host, passages, change.cells, change.action, config.timing)
        tables.append(costs(passages, before, after).assign(**change.how, draw=change.draw))
    return pd.concat(tables, ignore_index=True)


def _said(host: Host, passages: FactPassages, made: Sequence[Change], config: RecallConfig) -> pd.DataFrame:
    """Every answer of one passage, as it is (`fact` -1) and under every change of every fact's writes."""
    facts = passages.name.shape[1]

    def table(answers: Answers, fact: NDArray[np.int64], how: Mapping[str, str]) -> pd.DataFrame:
        asked = np.tile(np.arange(facts), len(fact))
        told = {part: [host.text([token]) for token in getattr(passages, part)[0, asked]] for part in ("name", "thing")}
        answer = answers.said.flatten().numpy()
        return pd.DataFrame({
            **how, "fact": fact.repeat(facts), "asked": asked, **told, "said": [host.text([token]) for token in answer],
            "right": answer == passages.thing[0, asked], "nats": answers.nats.flatten().numpy(),
        })  # fmt: skip

    tables = [table(answered(host, passages), np.array([-1]), dict.fromkeys(BY, "") | {"condition": "native"})]
    for change in made:
        if change.draw == 0:
            after = changed(host, passages, change.cells, change.action, config.timing)
            tables.append(table(after, np.arange(facts), change.how))
    return pd.concat(tables, ignore_index=True)


def _found(host: Host, passages: FactPassages, cells: Sequence[Cell], config: RecallConfig) -> pd.DataFrame:
    """Where attribution ranks the binding writes."""
    how = zip(("exact", "closed"), prices(host, passages, config.timing), strict=True)
    return pd.concat([ranked(passages, found, cells).assign(how=name) for name, found in how], ignore_index=True)


def _recovery(
    host: Host, saes: Mapping[Kind, Mapping[Site, SAE]], cell: Cell, draw: Draw, config: RecallConfig
) -> pd.DataFrame:
    """Known pairs against the atoms of the head's dictionaries, and those of others as large."""
    held, own = (
        bound(host, draw(config.pairs_on, PAIRS), cell),
        {kind: group[cell.site] for kind, group in saes.items()},
    )
    tables = [recovery(held, sae).assign(dictionary=kind, features=sae.config.features) for kind, sae in own.items()]
    if config.baselines:
        writes = written(host, draw(config.pairs_on, WRITES), cell.site, CLUSTERED, config.seed)
        for kind, features in product(config.baselines, sorted({sae.config.features for sae in own.values()})):
            atoms = baseline(kind, features, writes, config.seed)
            tables.append(recovery(held, atoms, kind != "pca").assign(dictionary=kind, features=len(atoms)))
    table = pd.concat(tables, ignore_index=True).assign(cell=str(cell))
    spelt = {token: host.text([token]) for part in ("name", "thing") for token in table[part].unique() if token >= 0}
    return table.assign(**{part: table[part].map(spelt).fillna("") for part in ("name", "thing")})


def _spelt(host: Host, table: pd.DataFrame) -> pd.DataFrame:
    """With what is said as text."""
    texts = {token: host.text([int(token)]) for token in table.said.unique()}
    return table.assign(said=table.said.map(texts))
