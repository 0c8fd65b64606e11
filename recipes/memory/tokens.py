"""tiny-gdn's tokenizer with every name and thing of the facts as one token: what a few more merges would have given."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from writesae.corpus.facts import NAMES, THINGS
from writesae.hosts import EMBEDDED

END = "<|endoftext|>"


def extended_tokenizer() -> str:
    """The JSON of the tokenizer. Its old tokens keep their ids; the new ones follow, halves of a word included."""
    own = json.loads((EMBEDDED["tiny-gdn"] / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary, merges = own["model"]["vocab"], own["model"]["merges"]
    tokenizer = Tokenizer.from_str(json.dumps(own))
    for word in (*NAMES, *THINGS):
        first, *rest = tokenizer.encode(" " + word, add_special_tokens=False).tokens
        for part in rest:
            if first + part not in vocabulary:
                merges.append([first, part])
                vocabulary[first + part] = len(vocabulary)
            first += part
    return json.dumps(own, ensure_ascii=False)


def open_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer itself."""
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(extended_tokenizer()), eos_token=END)


def write_tokenizer(path: Path) -> None:
    """As `load` reads it."""
    path.write_text(extended_tokenizer() + "\n", encoding="utf-8")
