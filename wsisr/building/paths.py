"""Where a build writes besides the store."""

from pathlib import Path


def report_folder(store: Path) -> Path:
    """`pairs.zarr` -> `pairs.report`: summary, failures and pictures."""
    return store.with_name(store.name.removesuffix(".zarr") + ".report")
