"""Public functions answer a wrong call with one line that says how they are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

import writesae as ws
from writesae.calls import worded
from writesae.errors import InputError
from writesae.hosts import Host

WRONG: list[tuple[Callable[[Host], Any], str]] = [
    (
        lambda _: cast(Any, ws.attribute)("text"),
        r"^attribute: missing .* 'sae'; it is called as attribute\(model, sae, text, ..\)$",
    ),
    (lambda host: ws.attribute(host, None, "a b", positions=3), "attribute: got an unexpected .* 'positions'"),  # type: ignore[call-arg]
    (lambda _: ws.attribute("a", None, "c"), "the first argument is .*, and must be a model"),  # type: ignore[arg-type]
    (lambda host: ws.text("sample", host, length="128"), "^text: length is '128', and must be int$"),  # type: ignore[arg-type]
    (lambda _: ws.text("sample", "gpt2"), "cut for a model or a tokenizer, not for a str"),  # type: ignore[arg-type]
    (lambda host: ws.text("sample", host, bos=1), "bos is 1, and must be bool"),  # type: ignore[arg-type]
    (lambda host: ws.codes(host, None, "a", top=True), "top is True, and must be int"),  # type: ignore[arg-type]
    (lambda _: ws.load_sae(), "load_sae: missing a required argument: 'source'"),  # type: ignore[call-arg]
    (lambda _: ws.load_sae("a/b", seed="0"), "seed is '0', and must be int or None"),  # type: ignore[arg-type]
    (lambda host: ws.capture(host, "sample"), "capture: missing a required argument: 'layers'"),  # type: ignore[call-arg,arg-type]
    (lambda _: ws.open_store(), "open_store: missing"),  # type: ignore[call-arg]
    (lambda _: ws.save_sae(), "save_sae: missing"),  # type: ignore[call-arg]
    (lambda _: ws.push_sae(), "push_sae: missing"),  # type: ignore[call-arg]
    (lambda _: ws.add_metrics(), "add_metrics: missing"),  # type: ignore[call-arg]
]


@pytest.mark.parametrize(("call", "said"), WRONG)
def test_a_wrong_call_is_one_line(call: Callable[[Host], Any], said: str, host: Host) -> None:
    with pytest.raises(InputError, match=said) as stop:
        call(host)
    assert "\n" not in str(stop.value)


def test_what_is_right_passes_and_errors_inside_are_not_hidden() -> None:
    import numpy as np

    @worded
    def made(number: float, *, size: int | None = None) -> float:
        """Its text."""
        return number / (size or 1)

    assert (made.__doc__, made(3), made(np.float32(3), size=np.int64(2))) == ("Its text.", 3, 1.5)  # type: ignore[arg-type]
    with pytest.raises(ZeroDivisionError):
        worded(lambda: 1 / 0)()
