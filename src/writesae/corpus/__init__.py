"""Text in, token blocks out: the embedded sample, files of every usual kind, Hugging Face data sets."""

from writesae.corpus.blocks import Boundaries, TokenBlocks, token_blocks, tokenizer_hash
from writesae.corpus.documents import Document, read_documents
from writesae.corpus.passages import Part, check_passages, draw_passages
from writesae.corpus.text import Passages, Text, text

__all__ = [
    "Boundaries",
    "Document",
    "Part",
    "Passages",
    "Text",
    "TokenBlocks",
    "check_passages",
    "draw_passages",
    "read_documents",
    "text",
    "token_blocks",
    "tokenizer_hash",
]  # fmt: skip
