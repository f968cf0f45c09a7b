"""Where a build writes besides the store."""

from pathlib import Path


def report_folder(store: Path) -> Path:
    """`pairs.zarr` -> `pairs.report`: summary, failures and pictures."""
    return store.with_name(store.name.removesuffix(".zarr") + ".report")


def record_path(store: Path) -> Path:
    """The record that rebuilds a store, in its report folder."""
    return report_folder(store) / "record.json.gz"
