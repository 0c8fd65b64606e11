"""Stores in object storage: the same bytes as in a folder, resumed exactly, written by one process at a time."""

from __future__ import annotations

import importlib.util
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
import torch
from store_fakes import FakeHost, capture, delta_stream, plain_stream, some_blocks

from writesae.cli import main
from writesae.disk import Folder, Place, json_bytes, place
from writesae.disk.remote import Bucket, Lease
from writesae.errors import DataError, InputError, OutputError, WritesaeError
from writesae.recurrence import Stream
from writesae.store import open_store, verify
from writesae.store.progress import finished_shards
from writesae.training import train
from writesae.training.recipe import recipe
from writesae.types import Site

quick = partial(capture, batch=4, progress=lambda *_: None)
SHARD = "layers/4/key/c/1/0/0/0"


@pytest.fixture(scope="session")
def server() -> Iterator[None]:
    """An S3 of this machine."""
    for name in ("s3fs", "boto3"):
        pytest.importorskip(name)
    moto = pytest.importorskip("moto.server")
    running = moto.ThreadedMotoServer(port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    own = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y",
        "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in own.items():
            patch.setenv(name, value)
        import boto3

        boto3.client("s3").create_bucket(Bucket="bucket")
        yield
    running.stop()


@pytest.fixture(params=["memory", "s3"])
def address(request: pytest.FixtureRequest) -> str:
    if request.param == "s3":
        request.getfixturevalue("server")
    return f"{request.param}://bucket/{uuid4().hex[:8]}/streams.zarr"


@pytest.fixture(params=["folder", "memory", "s3"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        request.getfixturevalue("server")
    return str(tmp_path / "s") if request.param == "folder" else f"{request.param}://bucket/{uuid4().hex[:8]}/s"


def contents(root: Place) -> dict[str, str]:
    return {name: root.sha256(name) for name in root.files()}


def change(root: Place, name: str) -> None:
    """One bit of a file, its size the same."""
    held = root._files.cat_file(root._full(name)) if isinstance(root, Bucket) else Path(f"{root}/{name}").read_bytes()
    root.put({name: held[:-30] + bytes([held[-30] ^ 1]) + held[-29:]})


def test_a_store_is_the_same_wherever_it_is(address: str, tmp_path: Path) -> None:
    local = quick(FakeHost(), some_blocks(), [1, 4], tmp_path / "s")
    store = quick(FakeHost(), some_blocks(), [1, 4], address)
    assert contents(store.place) == contents(local.place)
    assert (store.hash, verify(address), str(store.place)) == (local.hash, [], address)
    for one in (store, pickle.loads(pickle.dumps(store)), open_store(address)):
        written = one.read(Site(4, 2), 2, 11), local.read(Site(4, 2), 2, 11)
        assert all(torch.equal(a, b) for a, b in zip(*written, strict=True) if a is not None and b is not None)
    assert (store.tokens() == local.tokens()).all()
    assert address in repr(store)
    with pytest.raises(InputError, match="is in no folder"):
        _ = store.path
    again = FakeHost()
    assert quick(again, some_blocks(), [1, 4], address).hash == local.hash
    assert again.batches == 0


def test_training_reads_a_store_wherever_it_is(address: str, tmp_path: Path) -> None:
    config = recipe(None, {"site": "L4.H1", "features": 11, "k": 2, "steps": 3, "batch": 16, "target": "write-delta"})
    quick(FakeHost(), some_blocks(), [4], tmp_path / "s")
    quick(FakeHost(), some_blocks(), [4], address)
    here, there = train(tmp_path / "s", config, tmp_path / "1"), train(address, config, tmp_path / "2")
    assert all(torch.equal(a, b) for a, b in zip(here.sae.parameters(), there.sae.parameters(), strict=True))


class Killed(BaseException):
    """Stands for a signal: nothing in the library may catch it."""


def die(stream: Stream, batch: int) -> Stream:
    if batch == 2:
        raise Killed
    return stream


def test_what_was_interrupted_goes_on_and_a_shard_of_other_contents_is_found(anywhere: str, tmp_path: Path) -> None:
    whole = quick(FakeHost(), some_blocks(), [1, 4], tmp_path / "whole")
    with pytest.raises(Killed):
        quick(FakeHost(change=die), some_blocks(), [1, 4], anywhere)
    with pytest.raises(DataError, match="not complete: 2 of 4 shards"):
        open_store(anywhere)
    assert verify(anywhere) == ["manifest.json is missing: 2 of 4 shards are captured"]
    root = place(anywhere)
    change(root, SHARD)
    root.put({"shards/2.json": b'{"shard": 2, "fi', "shards/3.json": b"{}"})
    again = FakeHost()
    assert quick(again, some_blocks(), [1, 4], anywhere).hash == whole.hash
    assert again.batches == 3
    assert contents(root) == contents(whole.place)


@pytest.mark.parametrize("kind", [Folder, Bucket])
def test_a_kill_among_the_files_of_any_write(
    kind: type[Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The n-th time that files are put, only every second one is, and the process is no more."""
    whole = quick(FakeHost(), some_blocks(), [4], tmp_path / "whole")
    start, put, left = str(tmp_path) if kind is Folder else f"memory://{tmp_path.name}", kind.put, [0]

    def cut(root: Place, files: Mapping[str, bytes]) -> None:
        left[0] -= 1
        put(root, files if left[0] else dict(list(files.items())[1::2]))
        if not left[0]:
            raise Killed

    for last in range(1, 99):
        left[0] = last
        with monkeypatch.context() as patch, suppress(Killed):
            patch.setattr(kind, "put", cut)
            quick(FakeHost(), some_blocks(), [4], f"{start}/{last}")
        again = quick(FakeHost(), some_blocks(), [4], f"{start}/{last}")
        assert contents(again.place) == contents(whole.place)
        if left[0] > 0:
            break
    assert 8 < last < 90


def test_a_capture_that_an_older_version_began_goes_on(tmp_path: Path) -> None:
    """It kept its ledger in one file, whose last line a kill may have cut."""
    whole = quick(FakeHost(), some_blocks(), [4], tmp_path / "whole")
    root = tmp_path / "s"
    with pytest.raises(Killed):
        quick(FakeHost(change=die), some_blocks(), [4], root)
    lines = [path.read_text() for path in sorted((root / "shards").iterdir())]
    for path in (root / "shards").iterdir():
        path.unlink()
    (root / "shards").rmdir()
    (root / "shards.jsonl").write_text("".join([*lines, '{"shard":2,"files":{"layers/1/key/c/2']))
    again = FakeHost()
    assert quick(again, some_blocks(), [4], root).hash == whole.hash
    assert again.batches == 2
    assert {path.name for path in root.iterdir()} == {path.name for path in whole.path.iterdir()}


def test_what_a_kill_left_after_the_manifest_is_no_damage(anywhere: str) -> None:
    store = quick(FakeHost(), some_blocks(), [4], anywhere)
    before = contents(store.place)
    store.place.put({"shards/0.json": b'{"shard": 0, "files": {}}'})
    assert verify(anywhere) == []
    quick(FakeHost(), some_blocks(), [4], anywhere)
    assert contents(store.place) == before


def test_one_process_writes_at_a_time(anywhere: str) -> None:
    holder = f"process {os.getpid()} on "
    with place(anywhere).alone():
        for _ in range(2):
            with pytest.raises(OutputError, match=f"{holder}.* is at work in {anywhere}: wait for it"):
                quick(FakeHost(), some_blocks(), [4], anywhere)
    assert quick(FakeHost(), some_blocks(), [4], anywhere).sequences == 13


def test_of_two_that_come_at_once_at_most_one_stays(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have looked and seen nobody."""
    looks, look = [0], Lease.refuse_others

    def first_look_sees_nobody(lease: Lease) -> list[str]:
        looks[0] += 1
        return [] if looks[0] in (1, 3) else look(lease)

    monkeypatch.setattr(Lease, "refuse_others", first_look_sees_nobody)
    with place(address).alone(), pytest.raises(OutputError, match="is at work in"), place(address).alone():
        pass


def test_a_lease_ends_where_nobody_renews_it(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("writesae.disk.remote.SECONDS", 0.4)
    root, later = Bucket(address), Bucket(address)
    with root.alone():
        time.sleep(1)
        with pytest.raises(OutputError, match="is at work in"):
            later.check()  # it was renewed
        monkeypatch.setattr(Lease, "_renew", lambda lease: None)
        time.sleep(0.6)
        with pytest.raises(OutputError, match="could not be renewed"):
            root.put({"a": b"b"})
        with pytest.raises(OutputError, match="could not be renewed"):
            root.put_new("a", b"b")
        monkeypatch.undo()
        with later.alone():
            later.put({"a": b"c"})
            assert later.under(".lease").keys() == {later.lease.name}  # type: ignore[union-attr]
    assert not later.under(".lease")
    later.put({".lease/odd": json_bytes({"until": "tomorrow"}, "odd")})
    with later.alone():
        assert list(later.files()) == ["a"]


def test_a_manifest_is_put_once(anywhere: str) -> None:
    root = place(anywhere)

    def other(stream: Stream, batch: int) -> Stream:
        if batch == 3:
            root.put({"manifest.json": b"{}"})
        return stream

    with pytest.raises(OutputError, match="was finished by another process, with other contents"):
        quick(FakeHost(change=other), some_blocks(), [4], anywhere)
    assert root.json("manifest.json") == {}
    assert root.put_new("manifest.json", b"{}")
    assert not root.put_new("manifest.json", b"[]")


def test_damage_is_found_at_an_address(address: str) -> None:
    store = quick(FakeHost(), some_blocks(), [4], address)
    change(store.place, SHARD)
    with pytest.raises(DataError, match=f"cannot read layers/4/key of the store {address}"):
        open_store(address).read(Site(4, 0), 0, 13)
    assert verify(address)[0].startswith(f"{SHARD} has changed")
    store.place.delete([SHARD])
    store.place.put({"stray": b""})
    assert verify(address) == ["stray does not belong to the store", f"{SHARD} is missing"]
    with pytest.raises(DataError, match=f"{SHARD} is missing"):
        open_store(address)


def test_what_is_no_store_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="does not exist"):
        open_store(address)
    root = place(address)
    root.put({"thesis.txt": b"keep me"})
    place(f"{address}2").put({"a": b"b"})
    assert (root.holds(), root.files()) == (["thesis.txt"], {"thesis.txt": 7})
    with pytest.raises(InputError, match="is no stream store"):
        open_store(address)
    with pytest.raises(OutputError, match="it exists and is no stream store"):
        quick(FakeHost(), some_blocks(), [4], address)
    quick(FakeHost(), some_blocks(), [1], f"{address}3")
    with pytest.raises(OutputError, match="it holds another capture"):
        quick(FakeHost(plain_stream, revision="r2"), some_blocks(), [1], f"{address}3")


def test_a_place_that_is_not_there_is_one_line(server: None) -> None:
    for work in (open_store, lambda out: quick(FakeHost(), some_blocks(), [1], out)):
        with pytest.raises(WritesaeError, match=r"s3://nowhere/s.* does not exist") as stop:
            work("s3://nowhere/s")
        assert "\n" not in str(stop.value)


@pytest.mark.skipif(importlib.util.find_spec("s3fs") is not None, reason="it is installed")
def test_what_must_be_installed_is_said() -> None:
    with pytest.raises(InputError, match=r"s3://bucket/s: Install s3fs .* python -m pip install 'writesae\[s3\]'"):
        open_store("s3://bucket/s")


def test_addresses_that_nothing_can_be_done_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="nonsense://bucket/s is no address that is known"):
        open_store("nonsense://bucket/s")
    monkeypatch.chdir(tmp_path)
    quick(FakeHost(delta_stream), some_blocks(), [1], "s")
    with pytest.raises(OutputError, match="only stream stores can be in object storage"):
        train("s", site="L1.H0", features=11, k=2, steps=1, out="s3://bucket/run")
    assert os.listdir() == ["s"]


def test_the_commands_take_addresses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    address = f"memory://bucket/{uuid4().hex}.zarr"
    main(["capture", "--host", "tiny-gdn", "--layers", "1", "--length", "31", "--tokens", "200", "--out", address])
    assert address in capsys.readouterr().out
    main(["verify", address])
    assert capsys.readouterr().out == f"{address} (store): all 1 items are as they should be\n"
    run = ["--features", "11", "--k", "2", "--steps", "2", "--out", str(tmp_path / "run")]
    main(["train", address, "--site", "L1.H0", *run])
    assert (tmp_path / "run" / "result.json").exists()
    for words, said in (
        (["verify", f"{address}x"], f"there is nothing at {address}x: check the path"),
        (["train", f"{address}x", "--site", "L1.H0", *run], "`writesae capture` makes a store"),
        (["train", address, "--site", "L1.H0", *run[:-1], "s3://bucket/run"], "only stream stores"),
        (["quickstart", "--out", "s3://bucket/run"], "only stream stores"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 2
        assert said in (told := capsys.readouterr().err)
        assert told.count("\n") == 1


KILLED = """
import sys, time
import writesae.disk.remote as remote
from store_fakes import FakeHost, capture, some_blocks
remote.SECONDS = 1.0
slow = lambda stream, batch: (print(batch, flush=True), time.sleep(0.05), stream)[2]
print("begun", flush=True)
capture(FakeHost(change=slow), some_blocks(), [1, 4], sys.argv[1], batch=1, progress=lambda *_: None)
"""


@pytest.mark.slow
def test_ten_kills_at_random_moments(anywhere: str, tmp_path: Path) -> None:
    """Of a capture that has begun; after the tenth it may end."""
    if anywhere.startswith("memory"):
        pytest.skip("it ends with its process")
    whole = quick(FakeHost(), some_blocks(), [1, 4], tmp_path / "whole", batch=1)
    draw, root, done = random.Random(0), place(anywhere), [0]
    paths = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    for kill in range(11):
        command = [sys.executable, "-c", KILLED, anywhere]
        with subprocess.Popen(command, env=os.environ | paths, stdout=subprocess.PIPE) as run:
            assert run.stdout is not None
            if kill < 10:
                for _ in range(draw.randrange(1, 5)):  # one as it begins, and one a layer of a shard
                    run.stdout.readline()
                time.sleep(draw.random() * 0.2)
                run.send_signal(signal.SIGKILL)
            run.stdout.read()
            code = run.wait(300)
        assert code == (-signal.SIGKILL if kill < 10 else 0)
        done.append(13 if code == 0 else len(finished_shards(root)))
        time.sleep(1.1)  # its lease ends
    print(f"shards after each kill: {done}")
    assert done == sorted(done)
    assert contents(root) == contents(whole.place)
    assert verify(anywhere) == []
