"""The only code that knows the inside of a model."""

from writesae.hosts.host import Host, Layer
from writesae.hosts.intercept import KernelCall, Tap
from writesae.hosts.kernels import KernelResult
from writesae.hosts.load import EMBEDDED, load_host

__all__ = ["EMBEDDED", "Host", "KernelCall", "KernelResult", "Layer", "Tap", "load_host"]
