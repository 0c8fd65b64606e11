"""Text in, token blocks out: the embedded sample, files of every usual kind, Hugging Face data sets; split once."""

from writesae.corpus.blocks import Boundaries, Cutter, TokenBlocks, tokenizer_hash
from writesae.corpus.characters import decoded, encoded, in_place
from writesae.corpus.documents import Document, check_source, read_documents
from writesae.corpus.fingerprint import Fingerprint
from writesae.corpus.passages import Passages
from writesae.corpus.split import Part
from writesae.corpus.texts import Text, text

__all__ = [
    "Boundaries", "Cutter", "Document", "Fingerprint", "Part", "Passages", "Text", "TokenBlocks", "check_source",
    "decoded", "encoded", "in_place", "read_documents", "text", "tokenizer_hash",
]  # fmt: skip
