"""Which packages are here, and what to install where one is missing."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from writesae.errors import HostError

OLDEST_TRANSFORMERS = (5, 15)
"""The first release whose recurrence kernels are module-level functions that every call looks up by name."""

DISTRIBUTIONS = {"transformers": "transformers", "fla": "flash-linear-attention", "rwkv7_hf": "rwkv7-hf"}
"""Import name -> distribution name."""
EXTRAS = {"fla": "fla", "rwkv7_hf": "rwkv7"}
"""Import name -> the extra of writesae that installs it."""


def installed_version(package: str) -> str | None:
    """The version of a package by import name, or None where it is not installed."""
    try:
        return version(DISTRIBUTIONS.get(package, package))
    except PackageNotFoundError:
        return None


def release() -> tuple[int, ...]:
    """The first two numbers of the installed transformers, `()` where there is none."""
    found = installed_version("transformers") or ""
    return tuple(int(part) for part in found.split(".")[:2] if part.isdigit())


def require_transformers() -> None:
    """Raise HostError where transformers is too old to be intercepted."""
    if release() < OLDEST_TRANSFORMERS:
        oldest = ".".join(map(str, OLDEST_TRANSFORMERS))
        raise HostError(
            f"transformers {installed_version('transformers')} is too old: writesae needs {oldest} or newer, whose "
            f"recurrence kernels can be intercepted (pip install 'transformers>={oldest}')"
        )


def require_package(package: str, why: str) -> None:
    """Raise HostError naming the extra where a package is missing."""
    if installed_version(package) is None:
        extra = EXTRAS[package]
        raise HostError(f"{why} needs the package {DISTRIBUTIONS[package]}: pip install 'writesae[{extra}]'")


def kernel_package(family: str) -> str:
    """The package whose GPU kernels transformers uses for a family, by import name."""
    return "mamba_ssm" if family.startswith("mamba") else "fla"
