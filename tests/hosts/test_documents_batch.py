"""Documents that share a batch record what they record alone."""

from __future__ import annotations

import pytest
import torch

from writesae.errors import InputError
from writesae.hosts import Host, load
from writesae.hosts.documents import record_documents
from writesae.hosts.selfcheck import TOLERANCE, relative
from writesae.hosts.tiny import build_tiny
from writesae.recurrence import replay


@pytest.mark.parametrize("name", ["qwen3_5", "kimi_linear", "mamba2", "falcon_h1", "olmo_hybrid"])
def test_each_document_is_as_if_alone(name: str) -> None:
    host = load(build_tiny(name))
    g = torch.Generator().manual_seed(0)
    documents = [torch.randint(3, 101, (length,), generator=g) for length in (13, 1, 7)]
    layers = list(host.layers)
    together = record_documents(host, documents, layers)
    for document, streams in zip(documents, together, strict=True):
        alone = host.record(document[None], layers)
        for layer in layers:
            assert streams[layer].key.shape == alone[layer].key.shape
            ours, theirs = replay(streams[layer]), replay(alone[layer])
            assert relative(ours.outputs, theirs.outputs) <= TOLERANCE
            assert relative(ours.final, theirs.final) <= TOLERANCE


def test_empty_documents_are_refused(tiny: Host) -> None:
    for documents in ([], [torch.tensor([5]), torch.tensor([], dtype=torch.long)]):
        with pytest.raises(InputError, match="at least one document and one token"):
            record_documents(tiny, documents, [0])
