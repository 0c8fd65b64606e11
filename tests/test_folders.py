"""A folder is replaced in one step, one process writes in it at a time, and files of systems and tools do not count."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from writesae.disk import alone, check_place, files_under, folders, holds, new_folder, recover
from writesae.errors import OutputError

HOLDER = "import sys, time; from pathlib import Path; from writesae.disk import alone, new_folder\n"


def always(_: Path) -> bool:
    return True


def replace(folder: Path) -> None:
    with new_folder(folder, always) as partial:
        (partial / "new").write_text("")


def killed_in_rename(number: int, work: Callable[[], None]) -> bool:
    """Whether a forked child died before its `number`-th rename or exchange of names."""
    child = os.fork()
    if child == 0:
        seen = 0

        def hook(event: str, _: object) -> None:
            nonlocal seen
            if event in ("os.rename", "ctypes.dlsym"):
                seen += 1
                if seen == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("exchange", [True, False])
def test_a_kill_while_replacing_leaves_the_old_folder_or_the_new_one(
    exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchange:
        monkeypatch.setattr(folders, "_exchanged", lambda *_: False)
    for number in range(1, 9):
        folder = tmp_path / f"sae-{number}"
        folder.mkdir()
        (folder / "old").write_text("")
        killed = killed_in_rename(number, lambda folder=folder: replace(folder))  # type: ignore[misc]
        recover(folder)  # as whoever reads it does
        assert holds(folder) in (["old"], ["new"])
        if not killed:
            assert number > (1 if exchange else 2)
            assert holds(folder) == ["new"]
            assert not [name for name in os.listdir(tmp_path) if f"sae-{number}." in name]
            return
    raise AssertionError("it was killed every time")


def test_what_was_set_aside_is_put_back_by_the_next_writer_and_only_where_it_belongs(tmp_path: Path) -> None:
    for name in (".a.0123456789ab.old.partial", ".a.b.0123456789ab.old.partial", ".a.0123456789ab.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "old").write_text("")
    with pytest.raises(OutputError, match="not empty"), new_folder(tmp_path / "a"):
        pass
    assert sorted(os.listdir(tmp_path)) == [".a.0123456789ab.partial", ".a.b.0123456789ab.old.partial", "a"]
    recover(tmp_path / "a.b")
    assert holds(tmp_path / "a.b") == ["old"]


def test_names_of_systems_and_tools_do_not_count(tmp_path: Path) -> None:
    for name in (".DS_Store", "._a.txt", "Thumbs.db", "desktop.ini", "a.txt", "a", ".a.0123.partial"):
        (tmp_path / name).write_text("")
    for name in (".ipynb_checkpoints", "__MACOSX", "deep"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "b.txt").write_text("")
    assert [path.relative_to(tmp_path).as_posix() for path in files_under(tmp_path)] == ["a", "a.txt", "deep/b.txt"]
    assert [path.name for path in files_under(tmp_path, ".txt")] == ["a.txt", "b.txt"]
    assert holds(tmp_path) == ["a", "a.txt", "deep"]
    assert holds(tmp_path / "nowhere") == []


@pytest.mark.parametrize("claim", ["alone", "new_folder"])
def test_the_second_process_is_refused_with_the_first_named_until_it_dies(claim: str, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    code = f"{HOLDER}with {claim}(Path(sys.argv[1])):\n    print(flush=True)\n    time.sleep(99)"
    mine: Callable[[Path], object] = alone if claim == "alone" else new_folder
    with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        first.stdout.readline()
        named = f"process {first.pid} on {os.uname().nodename} is at work in {folder}: wait for it"
        with pytest.raises(OutputError, match=named), mine(folder):  # type: ignore[attr-defined]
            pass
        with pytest.raises(OutputError, match=named):
            check_place(folder)
        first.kill()
    check_place(folder)
    with mine(folder):  # type: ignore[attr-defined]
        check_place(folder)  # it is mine
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".lock")]


def test_without_locks_a_warning_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="no locks on this file system"), alone(tmp_path):
        pass
