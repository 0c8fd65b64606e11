"""What memory is free, on the machine and within a container's limit: to refuse what does not fit, and no more.

No result and no size of a batch depends on it: those follow from fixed budgets.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from writesae.errors import InputError

if TYPE_CHECKING:
    import torch

MEMINFO = Path("/proc/meminfo")
OWN_CGROUP = Path("/proc/self/cgroup")
CGROUPS = Path("/sys/fs/cgroup")
CGROUP_FILES = {"": ("", "memory.max", "memory.current"), "memory": (
    "memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
)}  # fmt: skip
"""Controllers of a line in `OWN_CGROUP` (none in version 2) -> folder, limit, and what is used."""


def free_bytes(device: torch.device) -> float | None:
    """What can still be allocated on a device; None where the system does not say (macOS)."""
    if device.type == "cuda":
        import torch

        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch's own, unused
        return float(torch.cuda.mem_get_info(device)[0] + held)
    if device.type != "cpu" or not MEMINFO.exists():
        return None
    fields = dict(line.split(":", 1) for line in MEMINFO.read_text("utf-8").splitlines())
    available = 1024.0 * int(fields["MemAvailable"].split()[0])
    return min([available, *_cgroup_rooms()])


def refuse_unless_free(needed: float, device: torch.device, what: str, advice: str) -> None:
    """Raise InputError where `needed` bytes are more than what is free."""
    free = free_bytes(device)
    if free is not None and needed > free:
        raise InputError(
            f"{what} need {needed / 2**30:.1f} GiB, but {max(free, 0) / 2**30:.1f} GiB are free on {device}: {advice}"
        )


def _cgroup_rooms() -> Iterator[float]:
    """What is left within every memory limit that this process runs under."""
    lines = OWN_CGROUP.read_text("utf-8").splitlines() if OWN_CGROUP.exists() else []
    for line in lines:
        _, controllers, name = line.split(":", 2)
        for controller in controllers.split(","):
            if controller not in CGROUP_FILES:
                continue
            part, limit, used = CGROUP_FILES[controller]
            root = CGROUPS / part
            own = root / name.lstrip("/")
            for folder in (own, *(p for p in own.parents if p.is_relative_to(root))):
                most = _text(folder / limit)
                if most.isdecimal():
                    cached = dict(x.split() for x in _text(folder / "memory.stat").splitlines())
                    yield float(most) - int(_text(folder / used) or 0) + int(cached.get("inactive_file", 0))


def _text(path: Path) -> str:
    """A file's text; empty where there is none, as where a container does not see its own folder."""
    return path.read_text("utf-8").strip() if path.is_file() else ""
