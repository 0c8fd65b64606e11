"""Text in, token blocks out: the embedded sample, files of every usual kind, Hugging Face data sets."""

from writesae.corpus.blocks import Boundaries, TokenBlocks, token_blocks, tokenizer_hash
from writesae.corpus.documents import Document, read_documents

__all__ = ["Boundaries", "Document", "TokenBlocks", "read_documents", "token_blocks", "tokenizer_hash"]
