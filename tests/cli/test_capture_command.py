from pathlib import Path

import pytest

from writesae.cli import main
from writesae.cli.capture import parse_layers
from writesae.corpus import read_documents
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
    assert store.provenance.described == "sample, train of 0.8"
    assert verify(out) == []
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    capsys.readouterr()
    main(arguments)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    said = capsys.readouterr().out
    assert "155 (5 sequences of 31)" in said
    assert "5 of 31 documents" in said


def folder_of_twelve(place: Path) -> Path:
    """Twelve documents that are long enough to be cut."""
    words = " ".join(document.text for document in read_documents("sample")).split()
    for n in range(12):
        (place / f"{n:02}.txt").write_text(" ".join(words[2003 * n : 2003 * (n + 1)]))
    return place


def test_a_folder_is_captured_from_all_its_documents_and_from_its_training_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = folder_of_twelve(tmp_path)
    common = ["--corpus", str(corpus), "--layers", "1", "--length", "37", "--held-out", "0.3"]
    for part in ("train", "test"):
        main(["capture", "--out", str(tmp_path / part), *common, "--tokens", "900", "--part", part])
        assert "12 of 12 documents" in capsys.readouterr().out
    train, test = (open_store(tmp_path / part) for part in ("train", "test"))
    assert (train.sequences, len(train.documents)) == (25, 12)
    assert train.provenance.part == "train of 0.7"
    assert train.text is not None
    assert train.text.overlap(train.tokens()) == 1
    assert train.text.overlap(test.tokens()) == 0


def test_what_is_wrong_is_said_before_the_host_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("writesae.hosts.load", lambda *_, **__: pytest.fail("the host was loaded"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("keep me")
    for arguments, message in {
        ("--tokens", "-5"): "cannot capture -5 tokens",
        ("--tokens", "0"): "cannot capture 0 tokens",
        ("--corpus", "nowhere.txt"): "no corpus at nowhere.txt",
        ("--corpus", "hf:"): "not written like hf:user/name",
        ("--held-out", "1.5"): "no share of the corpus",
        ("--batch", "0"): "at least 1 sequence a batch",
        ("--length", "0"): "hold no text",
        ("--layers", "L4"): "not written like",
        ("--out", str(tmp_path / "mine")): "is no stream store",
    }.items():
        out = [] if "--out" in arguments else ["--out", str(tmp_path / "s")]
        with pytest.raises(SystemExit):
            main(["capture", *out, *arguments])
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layers", "3"], "tiny-gdn has no recurrent layer 3; its recurrent layers are [0, 1, 2, 4, 5, 6]"),
        (["--layers", "L4"], "layers 'L4' are not written like"),
        (["--corpus", "nowhere.txt"], "no corpus at nowhere.txt"),
        (["--tokens", "900000"], "the corpus sample (train of 0.8) is too short: its 31 documents give"),
        (["--host", "no-such-host"], "unknown host 'no-such-host'"),
        (["--batch", "0"], "at least 1 sequence a batch"),
        (["--bos"], "no beginning-of-text token"),
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
