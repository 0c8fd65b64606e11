"""Real disks that are full, read-only or not ours, and folders that vanish: one line, and the same command goes on."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from crash_points import Writer, commands, forked, held, stop_clocks
from writesae.disk import write_json
from writesae.errors import OutputError, WritesaeError

SIZE = 6 << 20
MAKES = {"writesae capture": "store", "writesae train": "runs", "writesae eval": "it"}
"""Command -> what it makes."""
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="mounts a file system, which is root's alone"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What each command finds, and what it then makes."""
    root = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        stop_clocks(patch.setattr)
        for before, name in ((None, "writesae capture"), ("writesae capture", "writesae train"),
                             ("writesae train", "writesae eval")):  # fmt: skip
            if before is None:
                (root / name).mkdir()
            else:
                shutil.copytree(root / f"{before}, done", root / name)
            shutil.copytree(root / name, root / f"{name}, done")
            commands()[name].work(root / f"{name}, done")
    return root


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file system of 6 MB."""
    stop_clocks(monkeypatch.setattr)
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def finishes(writer: Writer, case: Path, whole: Path) -> None:
    """The same command once more leaves the same bytes as where nothing was in its way."""
    writer.work(case)
    now, wanted = held(case), held(whole)
    assert sorted(now) == sorted(wanted)
    assert [name for name, data in wanted.items() if now[name] != data] == []


@pytest.mark.parametrize("share", [0.5, pytest.param(0.02, marks=pytest.mark.slow),
                                   pytest.param(0.97, marks=pytest.mark.slow)])  # fmt: skip
@pytest.mark.parametrize("name", MAKES)
def test_a_full_disk(name: str, share: float, made: Path, disk: Path) -> None:
    case, whole = disk / "case", made / f"{name}, done"
    shutil.copytree(made / name, case)
    before, needed = held(case), sum(path.stat().st_size for path in (whole / MAKES[name]).rglob("*"))
    free = os.statvfs(disk)
    with (disk / "ballast").open("wb") as file:
        file.write(bytes(max(0, free.f_bavail * free.f_frsize - int(share * needed))))
    with pytest.raises(WritesaeError, match=r"^[^\n]*No space left on device[^\n]*\s*$"):
        commands()[name].work(case)
    assert {path: held(case).get(path) for path in before} == before  # what was whole stays whole
    (disk / "ballast").unlink()
    finishes(commands()[name], case, whole)


@pytest.mark.parametrize("name", ["writesae capture", pytest.param("writesae train", marks=pytest.mark.slow),
                                  pytest.param("writesae eval", marks=pytest.mark.slow)])  # fmt: skip
def test_a_disk_that_is_read_only(name: str, made: Path, disk: Path) -> None:
    case = disk / "case"
    shutil.copytree(made / name, case)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    try:
        with pytest.raises(WritesaeError, match=r"Read-only file system|cannot be written to"):
            commands()[name].work(case)
    finally:
        subprocess.run(["mount", "-o", f"remount,rw,size={SIZE}", disk], check=True)
    finishes(commands()[name], case, made / f"{name}, done")


@pytest.mark.parametrize("name", ["writesae train", pytest.param("writesae capture", marks=pytest.mark.slow),
                                  pytest.param("writesae eval", marks=pytest.mark.slow)])  # fmt: skip
def test_a_folder_that_is_another_s(name: str, made: Path, disk: Path, tmp_path: Path) -> None:
    """A user who may read everything there and write nothing."""
    case, said = disk / "case", tmp_path / "said"
    shutil.copytree(made / name, case)
    said.write_text("")
    said.chmod(0o666)
    commands()[name].work(shutil.copytree(made / name, disk / "warm"))  # a stranger may not import what is root's

    def stranger() -> None:
        os.setgid(65534)
        os.setuid(65534)
        commands()[name].work(case)

    for place in [disk, *disk.parents]:
        if place.stat().st_uid == 0 and place != Path("/"):
            place.chmod(place.stat().st_mode | 0o055)
    before = held(case)
    assert forked(stranger, said) == 2, said.read_text()
    assert "Permission denied" in said.read_text() or "cannot be written to" in said.read_text()
    assert held(case) == before
    finishes(commands()[name], case, made / f"{name}, done")


@pytest.mark.parametrize("at", [3, pytest.param(9, marks=pytest.mark.slow), pytest.param(17, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["writesae capture", "writesae train"])
def test_a_folder_that_vanishes(name: str, at: int, made: Path, disk: Path, tmp_path: Path) -> None:
    """It is taken away while it is written, before the n-th file that is opened in it for writing."""
    case, said = disk / "case", tmp_path / "said"
    shutil.copytree(made / name, case)

    def robbed() -> None:
        left, busy = at, False

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left, busy
            writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if writes and not busy and str(arguments[0]).startswith(str(case / MAKES[name])):
                left -= 1
                if left == 0:
                    busy = True
                    shutil.rmtree(case / MAKES[name])

        sys.addaudithook(hook)
        commands()[name].work(case)

    assert forked(robbed, said) == 2, said.read_text()
    assert "cannot write" in said.read_text() or "No such file" in said.read_text()
    finishes(commands()[name], case, made / f"{name}, done")


def test_a_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    write_json(tmp_path / "a.json", 1)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"cannot write .*a\.json: Disk quota exceeded"):
        write_json(tmp_path / "a.json", 2)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "1\n"
