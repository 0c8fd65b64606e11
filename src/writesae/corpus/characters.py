"""Tokens as text where one character takes several: joined at the token that completes it, or shown as bytes."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from writesae.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UNKNOWN = "\ufffd"
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SHOWN = [*range(33, 127), *range(161, 173), *range(174, 256)]
_HIDDEN = [byte for byte in range(256) if byte not in _SHOWN]
_ALPHABET = {chr(byte): byte for byte in _SHOWN} | {chr(256 + i): byte for i, byte in enumerate(_HIDDEN)}
"""The characters that stand for bytes in byte-level vocabularies (GPT-2)."""


def encoded(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text, without special tokens. Raises InputError for what is no Unicode text."""
    if half := re.search("[\ud800-\udfff]", text):
        raise InputError(f"the text holds half of a character, {half[0]!a} at {half.start():,}: give Unicode text")
    return list(tokenizer.encode(text, add_special_tokens=False, verbose=False))


def decoded(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> str:
    r"""The text of some token ids; bytes that make no whole character are written like `\xe6`."""
    text = str(tokenizer.decode(list(tokens)))
    return "".join(_read(tokenizer, tokens, "backslashreplace")) if UNKNOWN in text else text


def in_place(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> list[str]:
    """What each token adds to a text: a character of several tokens stands at the one that completes it."""
    return _read(tokenizer, tokens, "replace")


def _read(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], errors: str) -> list[str]:
    reader, texts = codecs.getincrementaldecoder("utf-8")(errors), list[str]()
    byte_level = b"ByteLevel" in _decoder(tokenizer)
    for token in tokens:
        data = _data(tokenizer, token, byte_level)
        if data is None:
            texts.append(reader.decode(b"", True) + str(tokenizer.decode([token])))
        else:
            texts.append(reader.decode(data))
    if texts:
        texts[-1] += reader.decode(b"", True)
    return texts


def _decoder(tokenizer: PreTrainedTokenizerBase) -> bytes:
    decoder = getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)
    return bytes(decoder.__getstate__()) if decoder is not None else b""


def _data(tokenizer: PreTrainedTokenizerBase, token: int, byte_level: bool) -> bytes | None:
    """The bytes that a token stands for, where its vocabulary is one of bytes or it is a single byte."""
    piece: object = tokenizer.convert_ids_to_tokens(token)  # bytes in the vocabulary of RWKV
    if isinstance(piece, bytes):
        return piece
    if isinstance(piece, str) and (byte := _BYTE.fullmatch(piece)):
        return bytes.fromhex(byte[1])
    if not byte_level or not isinstance(piece, str) or not all(letter in _ALPHABET for letter in piece):
        return None
    return bytes(_ALPHABET[letter] for letter in piece)
