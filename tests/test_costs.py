"""Plans of cost: worked out by hand, and near to what is measured."""

import pytest

from writesae.costs import CORE, H100, PUBLISHED, Shape, capture_seconds, duration, operations, size, train_seconds


def test_bytes_of_a_store_are_those_of_its_arrays() -> None:
    assert Shape(1.0, 2, 3, 5, 7).bytes_a_token() == 3 * ((5 + 7) * 2 + 4 + 4)
    assert Shape(1.0, 2, 3, 5, 7, vector_decay=True).bytes_a_token(width=4) == 3 * ((5 + 7) * 4 + 5 * 4 + 4)


def test_a_measured_step_costs_what_was_measured_and_others_scale_with_their_arithmetic() -> None:
    assert train_seconds(CORE, "state", 2048, 128, 128, 7.2e3) == pytest.approx(1.0)
    assert train_seconds(H100, "write", 16384, 128, 128, 1e6) < train_seconds(H100, "write", 32768, 128, 128, 1e6)
    double = train_seconds(CORE, "write", 32768, 128, 128, 1000) / train_seconds(CORE, "write", 16384, 128, 128, 1000)
    assert double == pytest.approx(2.0)
    assert operations("write", 3, 5, 7) == 2 * 3 * 12


def test_the_papers_recipe_takes_minutes_on_a_card() -> None:
    assert train_seconds(H100, "state", 2048, 128, 128, 100e6) == pytest.approx(1.9 * 60, rel=0.05)
    assert train_seconds(H100, "state", 16384, 128, 128, 100e6) == pytest.approx(3.5 * 60, rel=0.05)


def test_capture_is_two_operations_a_parameter() -> None:
    assert capture_seconds(CORE, 4.5e6, 1e6) == pytest.approx(2 * 4.5e6 * 1e6 / 45e9)
    assert capture_seconds(H100, PUBLISHED["Qwen/Qwen3.5-27B"].parameters, 5e6) > 3600 * 4


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (89, "89 s"), (91, "2 min"), (9000, "2.5 h"), (1e6, "12 days")],
)
def test_durations_in_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_sizes_in_words() -> None:
    assert [size(x) for x in (1500, 3.4e8, 1.24e12)] == ["2 kB", "340 MB", "1.2 TB"]
