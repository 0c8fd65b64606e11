"""The only code that knows the inside of a model."""

# ruff: noqa: E402  the version is checked before anything imports names that older releases do not have

from writesae.hosts.versions import require_transformers

require_transformers()

from writesae.hosts.host import Host, Layer
from writesae.hosts.intercept import KernelCall, Tap
from writesae.hosts.kernels import KernelResult
from writesae.hosts.loading import load
from writesae.hosts.sources import EMBEDDED

__all__ = ["EMBEDDED", "Host", "KernelCall", "KernelResult", "Layer", "Tap", "load"]
