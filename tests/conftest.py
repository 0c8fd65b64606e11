"""Fixtures shared by all tests: the embedded host, loaded once, and a few passages of real text."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import pytest
import torch

from writesae.corpus import read_documents, token_blocks
from writesae.hosts import Host, load


@pytest.fixture(scope="session")
def host() -> Host:
    """tiny-gdn, float32."""
    return load("tiny-gdn")


@pytest.fixture(scope="session")
def passages(host: Host) -> torch.Tensor:
    """Held-out text, `[7, 53]`."""
    blocks = token_blocks(read_documents("sample"), host.tokenizer, 53, 7)
    return torch.from_numpy(blocks.tokens)
