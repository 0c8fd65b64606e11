from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from store_fakes import (
    D_K,
    D_V,
    HEADS,
    LENGTH,
    SEQUENCES,
    FakeHost,
    capture,
    channel_stream,
    delta_stream,
    own_stream,
    plain_stream,
    some_blocks,
)
from torch import Tensor

from references import states_reference
from writesae.corpus import TokenBlocks
from writesae.errors import DataError, HostError, InputError, OutputError
from writesae.recurrence import Stream, delta_values, replay_reference
from writesae.store import open_store, verify
from writesae.types import Site

exact = partial(capture, store_dtype="float32", batch=4, progress=lambda done, total: None)
"""Every value as it was, four sequences a file, without a progress bar."""
FAMILIES = (delta_stream, channel_stream, plain_stream)
Make = Callable[[Tensor, int], Stream]


def silent(stored: int, total: int) -> None:
    """No progress bar."""


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


@pytest.fixture
def blocks() -> TokenBlocks:
    return some_blocks()


@pytest.mark.parametrize("make", FAMILIES)
def test_float32_returns_the_writes_of_a_head_exactly(make: Make, blocks: TokenBlocks, tmp_path: Path) -> None:
    store = exact(FakeHost(make), blocks, [4], tmp_path / "s")
    stream = make(torch.from_numpy(blocks.tokens[2:11]), 4)
    written = store.read(Site(4, 2), 2, 11)
    assert torch.equal(written.key, stream.key[:, :, 2])
    assert torch.equal(written.log_decay, stream.log_decay[:, :, 2])
    torch.testing.assert_close(written.update, delta_values(stream)[0][:, :, 2])
    torch.testing.assert_close(store.native(Site(4, 2), 2, 11), stream.value[:, :, 2])
    if stream.erase_gate is None:
        assert written.erase_gate is None
    else:
        assert written.erase_gate is not None
        assert torch.equal(written.erase_gate, stream.erase_gate[:, :, 2])


@pytest.mark.parametrize("make", FAMILIES)
def test_states_rebuilt_from_the_store_are_the_hosts_own(make: Make, blocks: TokenBlocks, tmp_path: Path) -> None:
    store = capture(FakeHost(make), blocks, [1], tmp_path / "s", batch=4, progress=silent)
    states = replay_reference(make(torch.from_numpy(blocks.tokens), 1)).states[:, :, 1]
    rebuilt = states_reference(store.read(Site(1, 1), 0, SEQUENCES))
    assert (rebuilt - states).norm() / states.norm() < 1e-3  # float16


def test_a_family_with_an_erase_of_its_own_keeps_both_rank_one_parts(blocks: TokenBlocks, tmp_path: Path) -> None:
    store = exact(FakeHost(own_stream), blocks, [1], tmp_path / "s")
    stream, site = own_stream(torch.from_numpy(blocks.tokens), 1), Site(1, 2)
    states = replay_reference(stream).states[:, :, 2]
    key, value = store.keys(site, 0, SEQUENCES), store.native(site, 0, SEQUENCES)
    erasure = store.erasure(site, 0, SEQUENCES)
    state = torch.zeros(SEQUENCES, D_K, D_V)
    for t in range(LENGTH):
        state = stream.log_decay[:, t, 2, :, None].exp() * state
        state = state - erasure.write[:, t, :, None] * erasure.erased[:, t, None, :]
        state = state + key[:, t, :, None] * value[:, t, None, :]
        torch.testing.assert_close(state, states[:, t])
    rebuilt = states_reference(store.pairs(site, 3, SEQUENCES))[:, 1::2]
    torch.testing.assert_close(rebuilt, states[3:])
    with pytest.raises(InputError, match="two rank-1 matrices"):
        store.read(site, 0, 1)


def test_tokens_documents_and_provenance_travel_with_the_streams(
    host: FakeHost, blocks: TokenBlocks, tmp_path: Path
) -> None:
    store = open_store(exact(host, blocks, "all", tmp_path / "s").path)
    assert np.array_equal(store.tokens(slice(3, 8)), blocks.tokens[3:8])
    assert np.array_equal(store.document(), blocks.document)
    assert store.documents == blocks.documents
    assert (store.sequences, store.length) == (SEQUENCES, LENGTH)
    assert store.sites == [Site(layer, head) for layer in (1, 4) for head in range(HEADS)]
    assert (store.layers[4].d_k, store.layers[4].d_v, store.layers[4].family) == (D_K, D_V, "fake")
    assert store.provenance.corpus == blocks.hash
    assert (store.provenance.host, store.provenance.revision) == ("fake", "r1")
    assert "fake @ r1" in repr(store)
    assert "<table>" in store._repr_html_()


def test_bare_tokens_will_do_and_progress_is_told(host: FakeHost, blocks: TokenBlocks, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    store = exact(host, blocks.tokens, [1], tmp_path / "s", progress=lambda *now: seen.append(now))
    assert seen == [(0, 13), (4, 13), (8, 13), (12, 13), (13, 13)]
    assert np.array_equal(store.tokens(), blocks.tokens)


class Killed(BaseException):
    """Stands for a signal: nothing in the library may catch it."""


@pytest.mark.parametrize("survived", [0, 1, 3])
def test_a_killed_capture_resumes_to_the_same_bytes(survived: int, blocks: TokenBlocks, tmp_path: Path) -> None:
    whole = exact(FakeHost(), blocks, [1, 4], tmp_path / "whole")

    def die(stream: Stream, batch: int) -> Stream:
        if batch == survived:
            raise Killed
        return stream

    with pytest.raises(Killed):
        exact(FakeHost(change=die), blocks, [1, 4], tmp_path / "cut")
    with pytest.raises(DataError, match=f"not complete: {survived} of 4 shards"):
        open_store(tmp_path / "cut")
    again = FakeHost()
    assert exact(again, blocks, [1, 4], tmp_path / "cut").hash == whole.hash
    assert again.batches == 4 - survived
    assert verify(tmp_path / "cut") == []


def test_a_kill_in_the_middle_of_a_write_leaves_nothing_behind(blocks: TokenBlocks, tmp_path: Path) -> None:
    whole = exact(FakeHost(), blocks, [1], tmp_path / "whole")

    def die(stream: Stream, batch: int) -> Stream:
        if batch == 2:
            raise Killed
        return stream

    root = tmp_path / "cut"
    with pytest.raises(Killed):
        exact(FakeHost(change=die), blocks, [1], root)
    with (root / "shards.jsonl").open("a") as ledger:
        ledger.write('{"shard":2,"files":{"layers/1/key/c/2')  # a line cut short
    (root / "layers/1/key/c/2.abc.partial").write_bytes(b"half a file")
    (root / "layers/1/key/c/1/0/0/.0.abc.partial").write_bytes(b"half a file")
    (root / "layers/1/key/c/1/0/0/0").write_bytes(b"torn by a power cut")
    again = FakeHost()
    assert exact(again, blocks, [1], root).hash == whole.hash
    assert again.batches == 3  # the torn shard 1 is captured again
    assert not list(root.rglob("*.partial"))
    assert verify(root) == []


def test_a_finished_capture_is_opened_and_not_run(blocks: TokenBlocks, tmp_path: Path) -> None:
    first = exact(FakeHost(), blocks, [1], tmp_path / "s")
    again = FakeHost()
    assert exact(again, blocks, [1], tmp_path / "s").hash == first.hash
    assert again.batches == 0


def test_a_folder_of_another_capture_is_refused(host: FakeHost, blocks: TokenBlocks, tmp_path: Path) -> None:
    root = tmp_path / "s"
    exact(host, blocks, [1], root)
    other = replace(host, revision="r2")
    with pytest.raises(OutputError, match=r'another capture \(revision is "r1" there and "r2" here\)'):
        exact(other, blocks, [1], root)
    with pytest.raises(OutputError, match='host_dtype is "float32" there and "bfloat16" here'):
        exact(replace(host, dtype=torch.bfloat16), blocks, [1], root)
    with pytest.raises(OutputError, match="dtype"):
        capture(host, blocks, [1], root, batch=4, progress=silent)
    with pytest.raises(OutputError, match="corpus"):
        exact(host, TokenBlocks.of(blocks.tokens + 1), [1], root)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("keep me")
    with pytest.raises(OutputError, match="is no stream store"):
        exact(host, blocks, [1], tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "keep me"
    with pytest.raises(OutputError, match=r"\(layers is \[1\] there and \[1, 4\] here\)"):
        exact(host, blocks, [1, 4], root)
    few = TokenBlocks.of(blocks.tokens[:5])
    said = rf"\(sequences is {len(blocks)} there and 5 here, batch is 4 there and 2 here, corpus is .*\)"
    with pytest.raises(OutputError, match=said):  # what says more than a hash comes first
        capture(host, few, [1], root, store_dtype="float32", batch=2)


def spoil(field: str, batch: int, place: tuple[int, ...], value: float) -> Callable[[Stream, int], Stream]:
    def change(stream: Stream, now: int) -> Stream:
        if now == batch:
            tensor = getattr(stream, field).clone()
            tensor[place] = value
            return replace(stream, **{field: tensor})
        return stream

    return change


@pytest.mark.parametrize("field", ["key", "value", "log_decay"])
def test_nan_stops_the_capture_with_layer_sequence_and_position(
    field: str, blocks: TokenBlocks, tmp_path: Path
) -> None:
    bad = FakeHost(plain_stream, change=spoil(field, 1, (2, 7, 1, 0), torch.nan))
    where = rf"layer 4 produced a {field} that is NaN or infinite at sequence 6, position 7, head 1"
    with pytest.raises(DataError, match=where):
        exact(bad, blocks, [4], tmp_path / "s")
    good = exact(FakeHost(plain_stream), blocks, [4], tmp_path / "s")  # what was stored was good
    assert verify(good.path) == []


def test_float16_overflow_is_refused_and_float32_takes_it(blocks: TokenBlocks, tmp_path: Path) -> None:
    loud = FakeHost(plain_stream, change=spoil("value", 0, (1, 3, 2, 5), 7e4))
    with pytest.raises(DataError, match=r"update reaches 7e\+04 at sequence 1, position 3, head 2, beyond float16"):
        capture(loud, blocks, [1], tmp_path / "half", batch=4, progress=silent)
    loud.batches = 0
    store = exact(loud, blocks, [1], tmp_path / "full")
    assert store.read(Site(1, 2), 1, 2).update[0, 3, 5] == 7e4


def test_values_too_small_for_float16_are_refused(blocks: TokenBlocks, tmp_path: Path) -> None:
    quiet = FakeHost(plain_stream, change=lambda stream, _: replace(stream, value=stream.value * 1e-6))
    with pytest.raises(DataError, match=r"update of head \d is so small"):
        capture(quiet, blocks, [1], tmp_path / "s", batch=4, progress=silent)


def test_an_erase_that_does_not_read_the_key_is_refused(blocks: TokenBlocks, tmp_path: Path) -> None:
    wrong = FakeHost(change=lambda stream, _: replace(stream, erase_read=2 * stream.key))
    with pytest.raises(HostError, match="erases along something other than its key"):
        exact(wrong, blocks, [1], tmp_path / "s")


def test_bad_requests_are_one_clear_line(host: FakeHost, blocks: TokenBlocks, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"fake has no recurrent layer 3; its recurrent layers are \[1, 4\]"):
        exact(host, blocks, [1, 3], tmp_path / "s")
    with pytest.raises(InputError, match="empty list"):
        exact(host, blocks, [], tmp_path / "s")
    with pytest.raises(InputError, match="at least 1 sequence a batch"):
        exact(host, blocks, [1], tmp_path / "s", batch=0)
    with pytest.raises(InputError, match="cannot capture -5 tokens"):
        exact(host, blocks, [1], tmp_path / "s", tokens=-5)
    for given in ({"tokens": 7}, {"boundaries": "packed"}):
        with pytest.raises(InputError, match="leave them out"):
            exact(host, blocks, [1], tmp_path / "s", **given)
    assert not (tmp_path / "s").exists()
    store = exact(host, blocks, [1], tmp_path / "s")
    with pytest.raises(InputError, match=r"no site L4.H0; it has layer 1 \(heads 0 to 2\)"):
        store.read(Site(4, 0), 0, 1)
    with pytest.raises(InputError, match="which has 0 to 13"):
        store.read(Site(1, 0), 5, 14)
    with pytest.raises(InputError, match="erases nothing but along its key"):
        store.erasure(Site(1, 0), 0, 1)


def test_a_store_can_be_moved(host: FakeHost, blocks: TokenBlocks, tmp_path: Path) -> None:
    store = exact(host, blocks, [1], tmp_path / "s")
    moved = open_store(shutil.move(store.path, tmp_path / "elsewhere"))
    assert moved.hash == store.hash
    assert moved.read(Site(1, 0), 0, 2).key.shape == (2, LENGTH, D_K)


def test_padded_sequences_write_nothing_before_their_text(tmp_path: Path) -> None:
    bare = some_blocks()
    padding = np.arange(SEQUENCES) % 4
    padded = TokenBlocks(bare.tokens, bare.documents, bare.document, padding)
    store = exact(FakeHost(plain_stream), padded, [1], tmp_path / "s")
    assert np.array_equal(store.padding(), padding)
    assert np.array_equal(store.padding(slice(2, 5)), padding[2:5])
    update = store.read(Site(1, 0), 0, SEQUENCES).update
    silenced = torch.from_numpy(np.arange(LENGTH) < padding[:, None])
    assert update[silenced].abs().max() == 0
    assert update[~silenced].abs().min() > 0
    assert verify(store.path) == []
    plain = exact(FakeHost(plain_stream), bare, [1], tmp_path / "bare")
    assert plain.padding().tolist() == [0] * SEQUENCES
    with pytest.raises(HostError, match=r"writes into its state at padding \(sequence 1, position 0, head 0\)"):
        exact(FakeHost(masks=False), padded, [1], tmp_path / "unmasked")
