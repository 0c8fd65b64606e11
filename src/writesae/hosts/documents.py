"""Documents of unequal length in one pass, none of which sees another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from writesae.errors import InputError
from writesae.hosts.host import Host
from writesae.recurrence import Stream


def record_documents(host: Host, documents: Sequence[Tensor], layers: Sequence[int]) -> list[dict[int, Stream]]:
    """The streams of each document (token ids `[T_i]`), each `[1, T_i, H, d]`, as if it had been run alone.

    The documents are the rows of one left-padded batch, so each starts from the empty state; the longest one sets the
    cost. Raises InputError for an empty list or an empty document.
    """
    lengths = [len(document) for document in documents]
    if not lengths or min(lengths) == 0:
        raise InputError(f"give at least one document and one token in each, not lengths {lengths}")
    longest = max(lengths)
    tokens = torch.zeros(len(documents), longest, dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for row, document in enumerate(documents):
        tokens[row, longest - len(document) :] = document
        mask[row, longest - len(document) :] = 1
    streams = host.record(tokens, layers, attention_mask=None if min(lengths) == longest else mask)
    return [
        {
            layer: stream.map(lambda x, row=row, start=longest - length: x[row : row + 1, start:])  # type: ignore[misc]
            for layer, stream in streams.items()
        }
        for row, length in enumerate(lengths)
    ]
