"""Which positions of a text get logits: those that an evaluation reads, and no others."""

from __future__ import annotations

import pytest
from torch import Tensor

from small_results import small_result
from writesae.hosts import Host


@pytest.mark.parametrize("name", ["sign", "installs", "erasure", "amplification", "proper_nouns"])
def test_only_what_is_read_reaches_the_vocabulary(name: str, host: Host, few_passages: dict[str, Tensor]) -> None:
    """A gradient reads a prompt's end and its next token, all else one position a row."""
    seen = set[int]()
    head = host.model.get_output_embeddings()  # type: ignore[no-untyped-call]
    handle = head.register_forward_pre_hook(lambda _, given: seen.add(given[0].shape[1]))
    try:
        small_result(name, host, few_passages[name])
    finally:
        handle.remove()
    assert seen
    assert max(seen) <= 2
