"""What is free, read from files that look like Linux's, and what is refused for it."""

from pathlib import Path

import pytest
import torch

from writesae import memory
from writesae.errors import InputError

CPU = torch.device("cpu")
KIB = 1024


def fake(folder: Path, monkeypatch: pytest.MonkeyPatch, own: str, files: dict[str, str]) -> None:
    (folder / "meminfo").write_text("MemTotal:  900 kB\nMemFree:   11 kB\nMemAvailable:  700 kB\n")
    (folder / "own").write_text(own)
    for name, text in files.items():
        path = folder / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(memory, "MEMINFO", folder / "meminfo")
    monkeypatch.setattr(memory, "OWN_CGROUP", folder / "own")
    monkeypatch.setattr(memory, "CGROUPS", folder / "cgroup")


@pytest.mark.parametrize(
    ("own", "files", "free"),
    [
        ("0::/\n", {}, 700 * KIB),
        ("0::/\n", {"memory.max": "max\n", "memory.current": "5\n"}, 700 * KIB),
        # a limit of the process's own group, of which cached files can be dropped, and a stricter one above it
        ("0::/a/b\n", {"a/b/memory.max": "5000\n", "a/b/memory.current": "1000\n",
                       "a/b/memory.stat": "anon 700\ninactive_file 300\n"}, 4300),
        ("0::/a/b\n", {"a/b/memory.max": "5000\n", "a/b/memory.current": "1000\n", "a/memory.max": "3000\n",
                       "a/memory.current": "1000\n"}, 2000),
        # a container that sees only its own limit, at the top; and version 1
        ("0::/docker/xyz\n", {"memory.max": "4000\n", "memory.current": "1000\n"}, 3000),
        ("3:cpu,cpuacct:/q\n2:memory:/q\n", {"memory/q/memory.limit_in_bytes": "4000\n",
                                             "memory/q/memory.usage_in_bytes": "500\n"}, 3500),
    ],
)  # fmt: skip
def test_free_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, files: dict[str, str], free: float
) -> None:
    fake(tmp_path, monkeypatch, own, files)
    assert memory.free_bytes(CPU) == free
    memory.refuse_unless_free(free, CPU, "13 passages", "take fewer")
    with pytest.raises(InputError, match=r"13 passages need .* GiB are free on cpu: take fewer"):
        memory.refuse_unless_free(free + 1, CPU, "13 passages", "take fewer")


def test_a_system_that_does_not_say_refuses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "nothing")
    assert memory.free_bytes(CPU) is None
    memory.refuse_unless_free(1e30, CPU, "all", "take less")
