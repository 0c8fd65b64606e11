"""Kill a writer before each of its operations on files, and report what is left. Run as a program by its test.

A process of its own that forks one writer a kill: every file operation of Python raises an audit event, and at the
n-th one that concerns the target's folder the writer sends itself SIGKILL, so nothing can tidy up.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import torch
from dictionaries import K, N, V, random_sae, same

from writesae.artifacts import add_to_collection, load_folder, read_collection, save_sae
from writesae.disk import PARTIAL
from writesae.errors import WritesaeError
from writesae.sae import SAE, Record, SAEConfig, TopK
from writesae.types import Site

EVENTS = ("open", "os.", "shutil.", "tempfile.")
OLD, NEW = (random_sae(SAEConfig(K, V, N, sparsity=TopK(5)), seed) for seed in (1, 2))


def write(kind: str, root: Path) -> None:
    """What is interrupted."""
    if kind == "cell":
        add_to_collection(NEW, root, Record(host="h", site=Site(2, 3), variant="new"))
    else:
        save_sae(NEW, root / "sae", replace=kind == "replace")


def kill_at(count: int, root: Path) -> None:
    """Install the hook that ends this process before its `count`-th file operation under `root`."""
    seen = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event.startswith(EVENTS) and any(str(root) in str(argument) for argument in arguments[:2]):
            seen += 1
            if seen == count:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def loads(folder: Path) -> SAE | None:
    """The dictionary in a folder, or None where loading is refused."""
    try:
        return load_folder(folder).sae
    except WritesaeError:
        return None


def state(kind: str, root: Path) -> str:
    """What a reader finds: `old`, `new` or `nothing`; anything else is a fault."""
    if kind == "cell":
        cells = [cell.path for cell in read_collection(root).cells]
        complete = all(loads(root / cell) is not None for cell in cells)
        return {1: "old", 2: "new"}[len(cells)] if complete else "an index of what is not there"
    for path in root.iterdir():
        if path.name.endswith(PARTIAL) and loads(path) is not None:
            return f"{path.name} loads"
    sae = loads(root / "sae")
    if sae is None:
        return "nothing"
    return "new" if same(sae, NEW) else "old" if same(sae, OLD) else "a mixture"


def main() -> None:
    torch.set_num_threads(1)
    results: dict[str, list[str]] = {}
    for kind in ("fresh", "replace", "cell"):
        results[kind] = []
        for count in range(1, 200):
            root = Path(sys.argv[1]) / f"{kind}-{count}"
            root.mkdir()
            if kind == "replace":
                save_sae(OLD, root / "sae")
            elif kind == "cell":
                add_to_collection(OLD, root, Record(host="h", site=Site(2, 3), variant="old"))
            child = os.fork()
            if child == 0:
                kill_at(count, root)
                write(kind, root)
                os._exit(0)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            results[kind].append(state(kind, root))
            if code != -signal.SIGKILL:
                results[kind].append(f"exit {code}")
                break
    print(json.dumps(results))


if __name__ == "__main__":
    main()
