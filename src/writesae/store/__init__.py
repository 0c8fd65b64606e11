"""Stream stores: what a host's recurrent layers write, factored, in Zarr v3 (docs/formats/store.md)."""

from writesae.store.capture import capture
from writesae.store.layout import CaptureConfig, Provenance, StoredLayer
from writesae.store.reader import StreamStore, open_store
from writesae.store.verify import verify

__all__ = ["CaptureConfig", "Provenance", "StoredLayer", "StreamStore", "capture", "open_store", "verify"]
