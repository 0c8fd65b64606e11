import gzip
import json
import lzma
import os
import resource
import sys
import time
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from writesae.corpus import Document, read_documents
from writesae.errors import DataError, InputError

TEXTS = ["First text.\nTwo lines: Grüße.", "Second.", "Third, with → an arrow."]
LINES = "".join(json.dumps({"name": f"doc {n}", "text": text}) + "\n" for n, text in enumerate(TEXTS))


def compress(data: bytes, suffix: str) -> bytes:
    match suffix:
        case ".gz":
            return gzip.compress(data)
        case ".xz":
            return lzma.compress(data)
        case ".zst":
            return bytes(pa.Codec("zstd").compress(data))
        case _:
            return data


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz", ".zst"])
def test_jsonl_reads_the_same_whatever_it_is_compressed_with(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"texts.jsonl{suffix}"
    path.write_bytes(compress(LINES.encode(), suffix))
    assert list(read_documents(path)) == [Document(f"doc {n}", text) for n, text in enumerate(TEXTS)]


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz", ".zst"])
def test_a_text_file_is_one_document(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(compress(TEXTS[0].encode(), suffix))
    assert list(read_documents(str(path))) == [Document(path.name, TEXTS[0])]


def test_parquet_rows_are_documents(tmp_path: Path) -> None:
    path = tmp_path / "texts.parquet"
    pq.write_table(pa.table({"id": [1, 2, 3], "text": TEXTS}), path)
    assert [text for _, text in read_documents(path)] == TEXTS
    assert next(iter(read_documents(path))).name == "texts.parquet:0"


def test_parquet_without_text_column_names_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "texts.parquet"
    pq.write_table(pa.table({"body": TEXTS}), path)
    with pytest.raises(DataError, match=r"columns \['body'\]"):
        list(read_documents(path))


def test_a_folder_is_read_by_file_name(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.txt").write_text("two")
    (tmp_path / "a.jsonl").write_text(LINES)
    (tmp_path / "ignored.bin").write_bytes(b"\0")
    for hidden in (".git", "__MACOSX"):
        (tmp_path / hidden).mkdir()
        (tmp_path / hidden / "notes.txt").write_text("not text of this corpus")
    (tmp_path / ".draft.txt").write_text("nor this")
    assert [text for _, text in read_documents(tmp_path)] == [*TEXTS, "two"]


def test_the_sample_is_clean_held_out_text_of_seven_sources() -> None:
    documents = list(read_documents("sample"))
    sources = {name.partition("/")[0] for name, _ in documents}
    assert len(documents) == len({name for name, _ in documents}) == 34
    assert sources == {"sotu", "austen", "moby_dick", "web_bible", "factbook", "sqlite_doc", "spurgeon"}
    assert 1_000_000 < sum(len(text.encode()) for _, text in documents) < 3_000_000


def test_what_does_not_exist_or_is_of_no_known_kind_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no corpus at nowhere"):
        read_documents("nowhere.txt")
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    with pytest.raises(InputError, match="of no known kind"):
        read_documents(tmp_path / "a.pdf")
    with pytest.raises(InputError, match="holds no file"):
        read_documents(tmp_path)


@pytest.mark.parametrize("line", ["{not json", '{"txt": "a"}', "[1]", '{"text": 3}'])
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(DataError, match=r"line 2 of .*texts\.jsonl"):
        list(read_documents(path))


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst"])
def test_a_file_cut_short_is_one_clear_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"texts.jsonl{suffix}"
    whole = compress((LINES * 500).encode(), suffix)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"texts\.jsonl"):
        list(read_documents(path))


def fake_datasets(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    calls: list[tuple[object, ...]] = []

    def load_dataset(path: str, name: str | None, **options: object) -> list[dict[str, str]]:
        calls.append((path, name, options))
        if path == "user/missing":
            raise ValueError("Dataset 'user/missing' doesn't exist\nlong story")
        return [{"body": text} for text in TEXTS]

    module = ModuleType("datasets")
    module.__spec__ = ModuleSpec("datasets", None)
    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    return calls


def test_hub_data_sets_are_streamed_with_the_options_of_the_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_datasets(monkeypatch)
    documents = list(read_documents("hf:user/name?split=test&column=body&config=en"))
    assert [text for _, text in documents] == TEXTS
    assert documents[2].name == "user/name/test/2"
    assert calls == [("user/name", "en", {"split": "test", "revision": None, "streaming": True})]


def test_hub_errors_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_datasets(monkeypatch)
    with pytest.raises(InputError, match=r"doesn't exist$"):
        list(read_documents("hf:user/missing"))
    with pytest.raises(InputError, match="unknown option 'splt'"):
        list(read_documents("hf:user/name?splt=test"))
    with pytest.raises(DataError, match=r"columns are \['body'\]"):
        list(read_documents("hf:user/name"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"writesae\[datasets\]"):
        list(read_documents("hf:user/name"))


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "one"}\n{"text": "two"}\n')
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"\xef\xbb\xbfthree"))
    (tmp_path / "c.txt").write_bytes(b"\xef\xbb\xbffour")
    assert [document.text for document in read_documents(tmp_path)] == ["one", "two", "three", "four"]


def test_what_belongs_to_systems_and_tools_is_no_text(tmp_path: Path) -> None:
    for name in (".ipynb_checkpoints/a.txt", "__MACOSX/a.txt", "._a.txt", ".a.txt", "deep/.git/a.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"\xff\xfe")
    (tmp_path / "deep" / "a.txt").write_text("text")
    assert [document.text for document in read_documents(tmp_path)] == ["text"]


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst"])
@pytest.mark.parametrize("kind", [".txt", ".jsonl"])
def test_a_compressed_file_that_is_cut_is_refused_wherever_it_is_cut(tmp_path: Path, suffix: str, kind: str) -> None:
    path, data = tmp_path / f"a{kind}{suffix}", compress(LINES.encode(), suffix)
    for size in (0, 3, 9, len(data) // 2, len(data) - 9, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(DataError, match="cannot read the corpus file"):
            list(read_documents(path))


@pytest.mark.parametrize("name", ["a.txt.gz", "lines.jsonl.gz", "a.jsonl.xz"])
def test_a_small_file_that_unpacks_to_gigabytes_is_refused_early(tmp_path: Path, name: str) -> None:
    piece = (b"\n" if "lines" in name else b"\0") * (1 << 20)
    packed = gzip.compress(piece, 1) if name.endswith("gz") else lzma.compress(piece, preset=0)
    (tmp_path / name).write_bytes(packed * 140)
    begin, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match="cannot read the corpus file"):
        list(read_documents(tmp_path / name))
    assert time.process_time() - begin < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB


@pytest.mark.parametrize("repeated", [True, False])
def test_parquet_that_unpacks_to_gigabytes_is_refused_early(tmp_path: Path, repeated: bool) -> None:
    path = tmp_path / "a.parquet"
    if repeated:  # one text of 9 MB, which 2,000 rows name
        texts = pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int32()), pa.array(["a" * (9 << 20)]))
    else:
        texts = pa.array(["a" * (9 << 20)] * 11)
    pq.write_table(pa.table({"text": texts}), path, compression="zstd", use_dictionary=repeated)
    begin, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=r"cannot read the corpus file .*next to nothing"):
        list(read_documents(path))
    assert time.process_time() - begin < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB


@pytest.mark.parametrize("values", [[1, 2], [["a"]], ["a", None], [b"a"]])
def test_parquet_of_what_is_no_text_is_refused(tmp_path: Path, values: list[object]) -> None:
    pq.write_table(pa.table({"text": pa.array(values)}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="text"):
        list(read_documents(tmp_path / "a.parquet"))


def test_odd_texts_and_names_are_refused_or_shown_as_escapes(tmp_path: Path) -> None:
    deep, half = tmp_path / "deep.jsonl", tmp_path / "half.jsonl"
    deep.write_text('{"text": ' + "[" * 10**5 + "]" * 10**5 + "}")
    half.write_text('{"text": "a \\ud800 b"}')
    for path, message in ((deep, "nested deeper"), (half, "half of a character")):
        with pytest.raises(DataError, match=f"line 1 of .*{message}"):
            list(read_documents(path))
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\x1b[31m.txt"))
    odd.write_text("text")
    assert list(read_documents(odd)) == [Document("\\udcff\\x1b[31m.txt", "text")]
    odd.write_bytes(b"\xff")
    with pytest.raises(DataError) as stop:
        list(read_documents(odd))
    str(stop.value).encode()
    text = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")])
    pq.write_table(pa.table({"text": text}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"cannot read the corpus file .*a\.parquet"):
        list(read_documents(tmp_path / "a.parquet"))
