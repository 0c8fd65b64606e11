from pathlib import Path

import pytest

from writesae.cli import main
from writesae.cli.capture import parse_layers
from writesae.errors import InputError
from writesae.store import open_store, verify

QUICK = ["--tokens", "130", "--length", "31", "--batch", "3"]


def test_capture_writes_a_whole_store_and_opens_it_when_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "s.zarr"
    arguments = ["capture", "--out", str(out), "--layers", "1", *QUICK]
    main(arguments)
    store = open_store(out)
    assert (store.sequences, store.length, list(store.layers)) == (5, 31, [1])
    assert store.provenance.host == "tiny-gdn"
    assert store.provenance.tokenizer is not None
    assert verify(out) == []
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    capsys.readouterr()
    main(arguments)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    assert "155 (5 sequences of 31)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layers", "3"], "tiny-gdn has no recurrent layer 3; its recurrent layers are [0, 1, 2, 4, 5, 6]"),
        (["--layers", "L4"], "layers 'L4' are not written like"),
        (["--corpus", "nowhere.txt"], "no corpus at nowhere.txt"),
        (["--tokens", "900000"], "the corpus is too short: its 34 documents give"),
        (["--host", "no-such-host"], "unknown host 'no-such-host'"),
        (["--batch", "0"], "at least 1 sequence a batch"),
        (["--length", "0"], "give at least 1"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "s.zarr"
    quick = [word for pair in zip(QUICK[::2], QUICK[1::2], strict=True) if pair[0] not in arguments for word in pair]
    with pytest.raises(SystemExit) as exit_:
        main(["capture", "--out", str(out), *quick, *arguments])
    assert exit_.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in lines if line.startswith("writesae: ")]) == 1
    assert message in lines[-1]
    assert not out.exists()


def test_layers_are_a_list_or_all() -> None:
    assert parse_layers("4, 5") == [4, 5]
    assert parse_layers("all") == "all"
    with pytest.raises(InputError, match="not written like"):
        parse_layers("4,,5")
