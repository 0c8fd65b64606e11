"""The first blocks of text, in the order of its documents: quick, and the same for every run."""

from collections.abc import Iterable
from itertools import chain, islice

from transformers import PreTrainedTokenizerBase

from writesae.corpus import Cutter, Document, TokenBlocks, read_documents


def first_blocks(
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    count: int | None = None,
    documents: Iterable[Document] | None = None,
    **options: object,
) -> TokenBlocks:
    """`count` blocks of `length` tokens (all that there are for None), of the sample if no documents are given."""
    cutter = Cutter(tokenizer, length, **options)  # type: ignore[arg-type]
    given = read_documents("sample") if documents is None else documents
    return cutter.blocks(list(islice(chain.from_iterable(cutter.cut(given)), count)))
