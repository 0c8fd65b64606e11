"""The delta-value form against values read off the replayed states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from references import delta_values_reference
from writesae.recurrence import Stream, delta_values, native_values, replay_reference

Draw = Callable[..., Stream]
RANK_ONE = ("plain", "scalar", "vector-plain", "vector")


@pytest.mark.parametrize("kind", RANK_ONE)
@pytest.mark.parametrize("chunk", [1, 3, 64])
def test_chunked_form_equals_reference(draw: Draw, kind: str, chunk: int) -> None:
    stream, initial = draw(kind), torch.randn(2, 3, 5, 7, dtype=torch.float64)
    values, final = delta_values(stream, initial, chunk)
    torch.testing.assert_close(values, delta_values_reference(stream, initial))
    torch.testing.assert_close(final, replay_reference(stream, initial).final)


@pytest.mark.parametrize("kind", ["scalar", "vector"])
@pytest.mark.parametrize("decay", [0.0, 50.0])
def test_long_chunks_survive_no_decay_and_total_decay(draw: Draw, kind: str, decay: float) -> None:
    """67 tokens cross a chunk and several sub-blocks; a decay of exp(-50) a token must not overflow anything."""
    stream = draw(kind, time=67, decay=decay)
    values, _ = delta_values(stream)
    torch.testing.assert_close(values, delta_values_reference(stream))


@pytest.mark.parametrize("kind", RANK_ONE)
def test_each_token_adds_exactly_one_rank_one_matrix(draw: Draw, kind: str) -> None:
    stream = draw(kind)
    values, _ = delta_values(stream)
    states = replay_reference(stream).states
    left = states[:, 4] - stream.log_decay[:, 4].exp().unsqueeze(-1) * states[:, 3]
    torch.testing.assert_close(left, stream.key[:, 4].unsqueeze(-1) * values[:, 4].unsqueeze(-2))


@pytest.mark.parametrize("kind", RANK_ONE)
def test_native_values_invert_delta_values(draw: Draw, kind: str) -> None:
    stream, initial = draw(kind, time=67), torch.randn(2, 3, 5, 7, dtype=torch.float64)
    update, _ = delta_values(stream, initial)
    unknown = replace(stream, value=torch.full_like(stream.value, torch.nan))
    torch.testing.assert_close(native_values(unknown, update, initial), stream.value)


def test_a_two_sided_erase_has_no_delta_value(draw: Draw) -> None:
    with pytest.raises(ValueError, match="erase direction of its own"):
        delta_values(draw("two-sided"))
