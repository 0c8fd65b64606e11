"""Characters of several tokens are joined where text is searched, and shown as bytes where tokens stand alone."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from writesae.corpus import decoded, encoded, in_place
from writesae.errors import InputError
from writesae.hosts import Host

TEXT = "日本語 and a café"


@pytest.fixture(scope="module")
def fallback() -> PreTrainedTokenizerBase:
    """A vocabulary of words that spells what it lacks in bytes, as SentencePiece does."""
    vocabulary = {"<unk>": 0, "▁a": 1, "b": 2} | {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True))
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=made)  # type: ignore[no-untyped-call]


def test_a_byte_level_vocabulary(host: Host) -> None:
    ids = encoded(host.tokenizer, TEXT)
    assert len(ids) > len(TEXT) - 9
    assert "".join(in_place(host.tokenizer, ids)) == decoded(host.tokenizer, ids) == host.text(ids) == TEXT
    assert [text for text in host.read(ids)[:9] if text] == list("日本語")
    assert [host.text([i]) for i in ids[:3]] == [r"\xe6", r"\x97", r"\xa5"]
    assert host.text(ids[:4]) == "日\\xe6"
    assert "\ufffd" not in "".join(host.text([i]) for i in range(len(host.tokenizer)))
    assert host.read([]) == []
    kept = encoded(host.tokenizer, "\ufffd is a character too")
    assert host.text(kept) == "\ufffd is a character too"


def test_a_vocabulary_that_falls_back_to_bytes(fallback: PreTrainedTokenizerBase) -> None:
    ids = [1, *(3 + byte for byte in "é".encode()), 2]
    assert in_place(fallback, ids) == [" a", "", "é", "b"]
    assert [decoded(fallback, [i]) for i in ids] == [" a", r"\xc3", r"\xa9", "b"]
    assert decoded(fallback, ids[:2]) == " a\\xc3"
    assert in_place(fallback, ids[:2]) == [" a", "\ufffd"]


def test_half_a_character_is_refused_wherever_text_becomes_tokens(host: Host) -> None:
    from writesae.causal.targets import token_id
    from writesae.edits.generation import generate

    for work in (encoded, lambda _, text: token_id(host, text), lambda _, text: generate(host, [text], ())):
        with pytest.raises(InputError, match=r"half of a character, '\\ud83d' at 4: give Unicode text"):
            work(host.tokenizer, "hey \ud83d")
