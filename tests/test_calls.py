"""Public functions answer a wrong call with one line that says how they are called."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

import writesae as ws
from writesae.calls import worded
from writesae.errors import InputError, WritesaeError
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
    (lambda _: ws.load(), r"load: missing .* 'source'; it is called as load\(source, ..\)$"),  # type: ignore[call-arg]
    (lambda _: ws.load("tiny-gdn", device=0), "load: device is 0, and must be str or None"),  # type: ignore[arg-type]
    (lambda _: ws.train(), r"train: missing .* 'store'; it is called as train\(store, ..\)$"),  # type: ignore[call-arg]
    (lambda _: ws.plot(), "plot: missing .* 'result'"),  # type: ignore[call-arg]
    (lambda _: ws.report(), "report: missing .* 'folder'"),  # type: ignore[call-arg]
    (lambda host: ws.edits.erase(host), r"erase: missing .*; it is called as erase\(model, at, ..\)$"),  # type: ignore[call-arg]
    (lambda host: ws.edits.amplify(host, "L5.H0", factor="2"), "amplify: "),  # type: ignore[arg-type, call-arg]
    (lambda _: ws.evals.quality(), r"call: missing .* 'model'; it is called as call\(model, ..\)$"),  # type: ignore[call-arg]
    (lambda host: ws.evals.quality(host, passages="3"), "call: passages is '3', and must be int or None"),  # type: ignore[arg-type]
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


def test_what_the_system_refuses_is_one_line_in_python_too(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a thing that the library does not look at itself: here, a disk that is full when a page is written."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/some/place")

    said = "^the system refuses /some/place: No space left on device$"
    for place in ("page.write.write_page", "page.one_result", "hosts.loading.find", "training.many.open_store"):
        monkeypatch.setattr(f"writesae.{place}", full)
    calls: tuple[Callable[[], object], ...] = (
        lambda: ws.report(tmp_path),
        lambda: ws.plot(tmp_path),
        lambda: ws.load("tiny-gdn"),
        lambda: ws.train("store", site="L5.H0", out=tmp_path),
    )
    for call in calls:
        with pytest.raises(WritesaeError, match=said) as stop:
            call()
        assert isinstance(stop.value.__cause__, OSError)
