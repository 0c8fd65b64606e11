"""Generate with edits, through transformers' own `generate`: greedy or sampled, batched, streamed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.generation.logits_process import (
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.generation.streamers import BaseStreamer

from writesae.causal.actions import Edit
from writesae.causal.engine import editing
from writesae.corpus import encoded
from writesae.errors import InputError
from writesae.hosts import Host
from writesae.hosts.caches import generation_argument, new_cache
from writesae.hosts.finite import check_finite
from writesae.show.sheet import Sheet, shows_itself

Prompts = str | Tensor | Sequence[int] | Sequence[str] | Sequence[Sequence[int]]
"""One prompt, as text or token ids, or several."""
OnTokens = Callable[[list[int]], None]
"""Called with one token id a row, as soon as a step is done."""


@dataclass(frozen=True)
class Sampling:
    """How to choose tokens."""

    temperature: float = 0.0
    """0 for greedy."""
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0 or (self.top_k is not None and self.top_k < 1):
            raise InputError(f"cannot sample at temperature {self.temperature} from the top {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f"cannot sample from the top {self.top_p} of the probability: give more than 0, at most 1")


@shows_itself
@dataclass(frozen=True)
class Generation:
    """What was generated, row by row."""

    prompts: list[list[int]]
    tokens: list[list[int]]
    """New tokens alone; cut before the first end-of-text token where there is one."""
    texts: list[str]
    """The new tokens' text; their ids for a model without a tokenizer."""
    logits: Tensor
    """Of the first new token, float32, `[B, vocabulary]`."""
    sampling: Sampling
    """How they were chosen; nothing of a checkpoint's own generation settings takes part."""
    ends: tuple[int, ...]
    """The tokens that end a text."""

    def sheet(self) -> Sheet:
        """The new text, a prompt a line."""
        return Sheet(tuple(self.texts))


class _Draw(LogitsProcessor):
    """Choose each row's token with its own random numbers: what follows a prompt does not depend on those beside it."""

    def __init__(self, sampling: Sampling, numbers: Iterable[int]) -> None:
        self.warpers: list[LogitsProcessor] = [TemperatureLogitsWarper(sampling.temperature)]
        self.warpers += [] if sampling.top_k is None else [TopKLogitsWarper(sampling.top_k)]
        self.warpers += [] if sampling.top_p is None else [TopPLogitsWarper(sampling.top_p)]
        self.generators = [torch.Generator().manual_seed(sampling.seed * 1_000_003 + number) for number in numbers]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        for warper in self.warpers:
            scores = warper(input_ids, scores)
        reached = scores.double().softmax(-1).cumsum(-1)
        drawn = torch.stack([torch.rand(1, generator=own, dtype=torch.float64) for own in self.generators])
        token = torch.searchsorted(reached, drawn.to(reached) * reached[:, -1:], right=True)
        return torch.full_like(scores, -torch.inf).scatter(1, token, 0.0)


class _First(LogitsProcessor):
    """Keep the logits of the first new token, and refuse any that are not finite."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.seen: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        check_finite(self.host, scores, input_ids)
        if not self.seen:
            self.seen.append(scores.clone())
        return scores


class _Report(BaseStreamer):
    def __init__(self, on_tokens: OnTokens) -> None:
        self.on_tokens, self.prompt_seen = on_tokens, False

    def put(self, value: Tensor) -> None:
        if self.prompt_seen:
            self.on_tokens(value.flatten().tolist())
        self.prompt_seen = True

    def end(self) -> None:
        """Nothing is kept back."""


def encode_prompts(model: Host, prompts: Prompts) -> list[list[int]]:
    """Token ids of one or several prompts. Raises InputError for an empty one, or what is neither text nor ids."""
    given: object = prompts.tolist() if isinstance(prompts, Tensor) else prompts
    many = [given] if isinstance(given, str) or (given and _are_ids(given)) else given
    if not isinstance(many, list | tuple) or not all(isinstance(p, str) or _are_ids(p) for p in many):
        raise InputError(f"a prompt is given as text or as token ids, not as {given!r:.80}")
    rows = [encoded(model.tokenizer, p) if isinstance(p, str) else list(p) for p in many]
    if not rows or not all(rows):
        raise InputError("a prompt is empty: give text of at least one token")
    if not all(0 <= i < model.vocabulary for row in rows for i in row):
        raise InputError(f"a prompt holds token ids that {model.name} lacks: its last is {model.vocabulary - 1}")
    return rows


def _are_ids(given: object) -> bool:
    return isinstance(given, list | tuple) and all(isinstance(i, int) for i in given)


def encode_text(model: Host, text: Prompts) -> list[int]:
    """Token ids of one text. Raises InputError for several, and as `encode_prompts` does."""
    rows = encode_prompts(model, text)
    if len(rows) != 1:
        raise InputError(f"{len(rows)} texts were given where one is taken: give one text, or its token ids [T]")
    return rows[0]


def pad_left(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, `[B, T]` each."""
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(r)) + list(r) for r in rows])
    mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows])
    return ids, mask


@torch.no_grad()
def generate(
    host: Host,
    prompts: Prompts,
    edits: Sequence[Edit] = (),
    new_tokens: int = 20,
    sampling: Sampling | None = None,
    stop_at_end: bool = True,
    on_tokens: OnTokens | None = None,
    first: int = 0,
) -> Generation:
    """Continue prompts with these edits made, each row on its own cache rows, left-padded where lengths differ.

    Prompts are numbered from `first` on: what is drawn for one follows from the seed and its number, whatever is beside
    it. Of the checkpoint's generation settings only its end tokens are taken. Raises InputError for edits that do not
    fit (see `editing`).
    """
    if new_tokens < 1:
        raise InputError(f"{new_tokens} new tokens were asked for; give at least 1")
    sampling = Sampling() if sampling is None else sampling
    rows = encode_prompts(host, prompts)
    ends, pad = _special(host)
    ends = ends if stop_at_end else ()
    ids, mask = (x.to(host.device) for x in pad_left(rows, pad))
    kept = _First(host)
    watching = LogitsProcessorList([kept])
    if sampling.temperature > 0:
        watching.append(_Draw(sampling, range(first, first + len(rows))))
    model = copy.copy(host.model)  # what a config leaves open is filled from the model's own, with a penalty, say
    model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    # an empty plan still needs the context, in which the model is runnable on any device
    with editing(host, edits) if edits else nullcontext(), host.tap():
        whole = type(model).generate(  # type: ignore[attr-defined]
            model,
            ids,
            attention_mask=mask,
            max_new_tokens=new_tokens,
            pad_token_id=pad,
            eos_token_id=list(ends) or None,
            streamer=None if on_tokens is None else _Report(on_tokens),
            do_sample=False,
            logits_processor=watching,
            **generation_argument(host, new_cache(host)),
        )
    new = [_cut(row, ends) for row in whole[:, ids.shape[1] :].tolist()]
    texts = [host.text(row) if host.has_tokenizer else " ".join(f"#{i}" for i in row) for row in new]
    return Generation(rows, new, texts, kept.seen[0], sampling, ends)


def _special(host: Host) -> tuple[tuple[int, ...], int]:
    """All end-of-text tokens that a checkpoint names, and the padding token."""
    sources = [getattr(host.model, "generation_config", None), host.config]
    sources += [host.tokenizer] if host.has_tokenizer else []
    ends = dict[int, None]()
    for source in sources:
        named = getattr(source, "eos_token_id", None)
        ends |= dict.fromkeys(named if isinstance(named, list | tuple) else [] if named is None else [int(named)])
    pad = getattr(sources[-1], "pad_token_id", None)
    return tuple(ends), int(pad if pad is not None else next(iter(ends), 0))


def _cut(row: list[int], ends: tuple[int, ...]) -> list[int]:
    return row[: next((i for i, token in enumerate(row) if token in ends), len(row))]
