"""Stream stores: what a host's recurrent layers write, factored, in Zarr v3 (docs/formats/store.md)."""

from writesae.store.capture import capture, check_request
from writesae.store.layout import Provenance, StoredLayer
from writesae.store.reader import StreamStore, open_store
from writesae.store.verify import verify

__all__ = ["Provenance", "StoredLayer", "StreamStore", "capture", "check_request", "open_store", "verify"]
