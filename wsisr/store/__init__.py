"""The pair store: Zarr v3 shards written once, read fast, and verified to the last bit.

Nothing here imports torch or a slide library; zarr-python is imported only where a layout is met
that this package does not read itself.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsisr.store.exporting import export_store as export_store
    from wsisr.store.files import DiskFullError as DiskFullError
    from wsisr.store.findings import Finding as Finding
    from wsisr.store.keep import keep_pairs as keep_pairs
    from wsisr.store.lock import BuildLock as BuildLock
    from wsisr.store.reader import PairStore as PairStore
    from wsisr.store.reader import open_pairs as open_pairs
    from wsisr.store.schema import ArraySpec as ArraySpec
    from wsisr.store.shard_reader import ShardReader as ShardReader
    from wsisr.store.slide_writer import SlideWriter as SlideWriter
    from wsisr.store.summarise import describe_store as describe_store
    from wsisr.store.summarise import summarise_store as summarise_store
    from wsisr.store.table import Table as Table
    from wsisr.store.verify import VerifyReport as VerifyReport
    from wsisr.store.verify import verify_store as verify_store
    from wsisr.store.writer import StoreWriter as StoreWriter

_LAZY = {
    "ArraySpec": "schema",
    "BuildLock": "lock",
    "DiskFullError": "files",
    "Finding": "findings",
    "PairStore": "reader",
    "ShardReader": "shard_reader",
    "SlideWriter": "slide_writer",
    "StoreWriter": "writer",
    "Table": "table",
    "VerifyReport": "verify",
    "describe_store": "summarise",
    "export_store": "exporting",
    "keep_pairs": "keep",
    "open_pairs": "reader",
    "summarise_store": "summarise",
    "verify_store": "verify",
}

__all__ = [
    "ArraySpec",
    "BuildLock",
    "DiskFullError",
    "Finding",
    "PairStore",
    "ShardReader",
    "SlideWriter",
    "StoreWriter",
    "Table",
    "VerifyReport",
    "describe_store",
    "export_store",
    "keep_pairs",
    "open_pairs",
    "summarise_store",
    "verify_store",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"wsisr.store.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'wsisr.store' has no attribute {name!r}")
