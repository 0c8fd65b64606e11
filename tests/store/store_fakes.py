"""A host without a model: its streams are a fixed function of the tokens, whatever the batch."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from writesae import store
from writesae.corpus import TokenBlocks
from writesae.disk import FileEntry
from writesae.errors import InputError
from writesae.recurrence import Stream
from writesae.store import StreamStore

capture = cast(Callable[..., StreamStore], store.capture)
"""As the library has it; a fake will do for a host."""
HEADS, D_K, D_V, LENGTH, SEQUENCES = 3, 5, 7, 11, 13


class FakeLayer(NamedTuple):
    family: str


def hashed(tokens: Tensor, salt: int, width: int) -> Tensor:
    """Values in (-1, 1), `[B, T, HEADS, width]`, each a function of its token, head and channel alone."""
    channel = torch.arange(HEADS * width, dtype=torch.float64).reshape(HEADS, width)
    seed = tokens.to(torch.float64)[..., None, None] + 1
    return torch.sin(seed * (1.7 + salt) + channel * (0.9 + salt) * seed.sqrt()).float()


def delta_stream(tokens: Tensor, layer: int) -> Stream:
    """Gated DeltaNet: scalar decay, erase along the key."""
    query, key = hashed(tokens, layer, D_K), torch.nn.functional.normalize(hashed(tokens, layer + 1, D_K), dim=-1)
    decay = hashed(tokens, layer + 2, 1).abs().neg()
    gate = hashed(tokens, layer + 3, 1).abs() * decay.exp()
    return Stream(query, key, hashed(tokens, layer + 4, D_V), decay, erase_read=key, erase_gate=gate)


def channel_stream(tokens: Tensor, layer: int) -> Stream:
    """Kimi Delta Attention: a decay a key channel, erase along the key."""
    scalar = delta_stream(tokens, layer)
    decay = hashed(tokens, layer + 5, D_K).abs().neg()
    return Stream(
        scalar.query,
        scalar.key,
        scalar.value,
        decay,
        erase_read=decay.exp() * scalar.key,
        erase_gate=scalar.erase_gate,
    )


def plain_stream(tokens: Tensor, layer: int) -> Stream:
    """GLA: a decay a key channel, nothing erased."""
    channel = channel_stream(tokens, layer)
    return Stream(channel.query, channel.key, channel.value, channel.log_decay)


def own_stream(tokens: Tensor, layer: int) -> Stream:
    """RWKV-7: the erase has a direction of its own."""
    plain = plain_stream(tokens, layer)
    read = torch.nn.functional.normalize(hashed(tokens, layer + 6, D_K), dim=-1)
    return Stream(
        plain.query,
        plain.key,
        plain.value,
        plain.log_decay,
        erase_read=read,
        erase_write=0.5 * read * hashed(tokens, layer + 7, D_K).abs(),
    )


@dataclass
class FakeHost:
    """A host for `capture`; `change` may spoil a batch, `batches` counts the forward passes."""

    make: Callable[[Tensor, int], Stream] = delta_stream
    name: str = "fake"
    revision: str = "r1"
    dtype: torch.dtype = torch.float32
    layers: dict[int, FakeLayer] = field(default_factory=lambda: {1: FakeLayer("fake"), 4: FakeLayer("fake")})
    change: Callable[[Stream, int], Stream] = lambda stream, batch: stream
    batches: int = 0
    masks: bool = True

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        raise InputError("no tokenizer")

    def need_writes(self) -> None:
        pass

    def record(
        self, tokens: Tensor, layers: Sequence[int], attention_mask: Tensor | None = None, first: int | None = None
    ) -> dict[int, Stream]:
        streams = {layer: self.change(self.make(tokens, layer), self.batches) for layer in layers}
        self.batches += 1
        if attention_mask is not None and self.masks:
            seen = attention_mask[:, :, None, None]
            streams = {n: replace(s, value=s.value * seen) for n, s in streams.items()}
        return streams


def some_blocks() -> TokenBlocks:
    """13 sequences of 11 tokens from two documents."""
    tokens = np.random.default_rng(3).integers(0, 997, (SEQUENCES, LENGTH))
    return TokenBlocks(tokens, ("first", "second"), (np.arange(SEQUENCES) >= 5).astype(np.int64))


def relist(root: Path, edit: Callable[[dict[str, FileEntry]], object] = lambda files: None) -> None:
    """A manifest of what is there now, or of an `edit` of that, with the hash that fits it."""
    (root / "manifest.json").unlink()
    files = {path.relative_to(root).as_posix(): FileEntry.of(path) for path in root.rglob("*") if path.is_file()}
    edit(files)
    lines = "".join(f"{name}\0{files[name].sha256}\n" for name in sorted(files)).encode("utf-8", "surrogatepass")
    told = {name: {"sha256": file.sha256, "size": file.size} for name, file in files.items()}
    manifest = {"hash": hashlib.sha256(lines).hexdigest(), "size": sum(f.size for f in files.values()), "files": told}
    (root / "manifest.json").write_text(json.dumps(manifest))
