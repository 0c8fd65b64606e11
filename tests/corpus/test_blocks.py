import copy
from collections.abc import Iterator

import numpy as np
import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from first_blocks import first_blocks
from writesae.corpus import Cutter, Document, TokenBlocks, tokenizer_hash
from writesae.errors import DataError, InputError

EOS = 0


def document(name: str, first: int, words: int) -> Document:
    return Document(name, " ".join(f"w{n}" for n in range(first, first + words)))


DOCUMENTS = [document("a", 1, 11), document("short", 20, 3), document("b", 31, 17)]


def test_separate_blocks_never_cross_a_document(tokenizer: PreTrainedTokenizerFast) -> None:
    blocks = first_blocks(tokenizer, 5, documents=DOCUMENTS)
    assert blocks.tokens.tolist() == [list(range(s, s + 5)) for s in (1, 6, 31, 36, 41)]
    assert blocks.documents == ("a", "b")
    assert blocks.document.tolist() == [0, 0, 1, 1, 1]
    assert (len(blocks), blocks.length, blocks.read) == (5, 5, 3)


def test_packed_blocks_lose_only_the_last_tail(tokenizer: PreTrainedTokenizerFast) -> None:
    blocks = first_blocks(tokenizer, 5, documents=DOCUMENTS, boundaries="packed")
    joined = [*range(1, 12), EOS, *range(20, 23), EOS, *range(31, 48), EOS]
    assert blocks.tokens.reshape(-1).tolist() == joined[: len(joined) // 5 * 5]
    assert blocks.document.tolist() == [0, 0, 0, 1, 2, 2]


def test_padded_blocks_keep_the_tails_with_padding_on_their_left(tokenizer: PreTrainedTokenizerFast) -> None:
    blocks = first_blocks(tokenizer, 6, documents=DOCUMENTS, bos=96, boundaries="padded")
    assert blocks.padding is not None
    assert blocks.padding.tolist() == [0, 0, 4, 2, 0, 0, 0, 3]
    assert blocks.document.tolist() == [0, 0, 0, 1, 2, 2, 2, 2]
    assert blocks.tokens[2].tolist() == [0, 0, 0, 0, 96, 11]
    assert blocks.tokens[3].tolist() == [0, 0, 96, 20, 21, 22]
    mask = blocks.attention_mask(2, 4)
    assert mask is not None
    assert mask.tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 1, 1]]
    assert blocks.attention_mask(4, 7) is None


def test_bos_takes_the_first_place_of_every_block(tokenizer: PreTrainedTokenizerFast) -> None:
    blocks = first_blocks(tokenizer, 6, documents=DOCUMENTS, count=3, bos=EOS)
    assert blocks.tokens.tolist() == [[EOS, *range(s, s + 5)] for s in (1, 6, 31)]


def test_an_endless_stream_is_read_only_as_far_as_needed(tokenizer: PreTrainedTokenizerFast) -> None:
    taken = []

    def endless() -> Iterator[Document]:
        while True:
            taken.append(1)
            yield DOCUMENTS[0]

    assert len(first_blocks(tokenizer, 5, documents=endless(), count=3)) == 3
    assert len(taken) == 2


def test_blocks_that_cannot_be_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(InputError, match="blocks of 0 tokens"):
        first_blocks(tokenizer, 0, documents=DOCUMENTS)
    with pytest.raises(InputError, match="blocks of 1 tokens hold no text: give at least 2"):
        first_blocks(tokenizer, 1, documents=DOCUMENTS, bos=EOS)
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.eos_token = None
    with pytest.raises(InputError, match="end-of-text token"):
        first_blocks(tokenizer, 5, documents=DOCUMENTS, boundaries="packed")


def test_the_hash_tells_corpora_apart() -> None:
    tokens = np.arange(35).reshape(5, 7)
    same, other = TokenBlocks.of(tokens), TokenBlocks.of(tokens + 1)
    assert same.hash == TokenBlocks.of(tokens.copy()).hash
    assert len({same.hash, other.hash, TokenBlocks.of(tokens.reshape(7, 5)).hash}) == 3
    renamed = TokenBlocks(tokens, ("b",), np.zeros(5, np.int64))
    assert renamed.hash != same.hash


def test_the_tokenizer_hash_follows_its_content(tokenizer: PreTrainedTokenizerFast) -> None:
    backend = Tokenizer(models.WordLevel({"<eos>": 0, "w2": 1}, unk_token="<eos>"))
    other = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")  # type: ignore[no-untyped-call]
    assert tokenizer_hash(tokenizer) == tokenizer_hash(tokenizer)
    assert tokenizer_hash(other) != tokenizer_hash(tokenizer)


def test_the_tokenizer_hash_is_the_same_after_it_padded_and_cut(tokenizer: PreTrainedTokenizerFast) -> None:
    used = copy.deepcopy(tokenizer)
    used.pad_token = used.eos_token
    before = tokenizer_hash(used)
    used(["a", "a long text of many words"], padding=True, truncation=True, max_length=3)
    assert used.backend_tokenizer.padding is not None
    assert tokenizer_hash(used) == before
    assert used.backend_tokenizer.truncation is not None  # and it is left as it was


@pytest.mark.parametrize("tokens", [np.zeros((0, 5), np.int64), np.zeros(5, np.int64), np.zeros((2, 3))])
def test_blocks_that_are_no_rectangle_of_tokens_are_refused(tokens: np.ndarray) -> None:
    with pytest.raises(InputError, match="non-empty int64 array"):
        TokenBlocks.of(tokens)


def test_the_hash_of_a_tokenizer_does_not_depend_on_its_last_call(tokenizer: PreTrainedTokenizerFast) -> None:
    before, backend = tokenizer_hash(tokenizer), tokenizer.backend_tokenizer
    backend.enable_padding(length=7)
    backend.enable_truncation(5)
    try:
        assert tokenizer_hash(tokenizer) == before
        assert backend.padding is not None  # it is left as it was
        assert backend.truncation is not None
        backend.no_padding()
        assert tokenizer_hash(tokenizer) == before
    finally:
        backend.no_padding()
        backend.no_truncation()
    assert tokenizer_hash(tokenizer) == before


def test_half_a_character_names_its_document(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(DataError, match=r"the document a.txt: the text holds half of a character, '\\ud83d' at 4"):
        list(Cutter(tokenizer, 5).cut([Document("a.txt", "hey \ud83d")]))
