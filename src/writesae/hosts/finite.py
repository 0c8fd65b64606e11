"""No number of a run is NaN or infinite, or the run is refused with the place where that begins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from writesae.errors import DataError
from writesae.hosts.intercept import KernelCall, Tap, own_thread
from writesae.hosts.kernels import KernelResult
from writesae.recurrence import Stream, finite

if TYPE_CHECKING:
    from writesae.hosts.host import Host

BEGINNING = 8
"""Tokens of a passage by which it is told apart."""


class _Found(Exception):
    """Ends the run that looks for the first place."""


def check_finite(
    host: Host, made: Tensor, tokens: Tensor, attention_mask: Tensor | None = None, first: int | None = None
) -> None:
    """Raise DataError unless all of `made` is finite, which a run of texts `[B, T]` gave, a row a text: with the layer,
    head, passage and token at which NaN or infinity begins. Passages have numbers if that of the `first` is given."""
    if finite(made):
        return
    row = place(made)[0]
    mask = None if attention_mask is None else attention_mask[row : row + 1]
    begins = _beginning(host, tokens[row : row + 1], mask)
    named = begun(host, tokens[row]) if first is None else f"sequence {first + row}"
    if begins is None:
        raise DataError(f"{host.name}: a change of {named} makes NaN or infinity: make it smaller; nothing is kept")
    why = "check the weights" if host.exact else "check the weights, or load the host in float32"
    raise DataError(f"{host.name}: NaN or infinity begins in {begins} of {named}: {why}; nothing of it is kept")


def check_stream(
    host: Host, stream: Stream, tokens: Tensor, attention_mask: Tensor | None = None, first: int | None = None
) -> None:
    """The same of what a layer reads, writes, forgets and erases."""
    for _, x in _parts(stream):
        check_finite(host, x, tokens, attention_mask, first)


def _parts(stream: Stream) -> Iterator[tuple[str, Tensor]]:
    """By name; to forget all, a log decay of minus infinity, is a number here."""
    for part in fields(stream):
        if isinstance(x := getattr(stream, part.name), Tensor):
            yield part.name, x.clamp_min(torch.finfo(x.dtype).min) if part.name == "log_decay" else x


def begun(host: Host, tokens: Tensor) -> str:
    """A text `[T]` by its beginning, in words."""
    ids = tokens[:BEGINNING].tolist()
    return f"the text that begins {host.text(ids)!r}" if host.has_tokenizer else f"the text that begins {ids}"


def place(x: Tensor) -> list[int]:
    """Where the first number that is not finite stands."""
    return [int(i) for i in (~x.isfinite()).nonzero()[0].tolist()]


@torch.no_grad()
def _beginning(host: Host, tokens: Tensor, attention_mask: Tensor | None) -> str | None:
    """Run a text `[1, T]` once more: part and token of the first that is not finite, in the order in which it is made;
    None where all is."""
    found: list[str] = []

    def look(what: str, x: Tensor, heads: bool = False) -> None:
        if not finite(x):
            _, token, head, *_ = place(x)
            found.append(f"{f'head {head} of ' * heads}{what}, at token {token}")
            raise _Found

    def called(call: KernelCall) -> None:
        for name, x in _parts(call.stream):
            look(f"layer {call.layer} (its {name})", x, heads=True)

    def returned(call: KernelCall, result: KernelResult) -> KernelResult:
        look(f"layer {call.layer} (its output)", result.output, heads=True)
        return result

    def left(what: str, _: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        look(what, output if isinstance(output, Tensor) else output[0])

    parts = {"the token embedding": host.model.get_input_embeddings()}
    parts |= {f"block {i}": block for i, block in enumerate(host.blocks)}
    parts["the unembedding"] = cast(nn.Module, host.model.get_output_embeddings())  # type: ignore[no-untyped-call]
    hooks = [part.register_forward_hook(own_thread(partial(left, what))) for what, part in parts.items()]
    try:
        with host.tap(Tap(before=called, after=returned)):
            mask = None if attention_mask is None else attention_mask.to(host.device)
            host.model(input_ids=tokens.to(host.device), attention_mask=mask, use_cache=False)
    except _Found:
        return found[0]
    finally:
        for hook in hooks:
            hook.remove()
    return None
