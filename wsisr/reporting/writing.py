"""`wsisr report PATH`: which page a path gets."""

import importlib
from pathlib import Path

from wsisr.errors import ConfigError
from wsisr.inference.trained import RUN_NAME
from wsisr.store.object_files import url_of
from wsisr.store.summarise import is_store

PAGE_NAME = "report.html"
MARKS = {
    "run": RUN_NAME,
    "evaluation": "results.json",
    "study": "study.json",
    "audit": "audit.json",
}
"""Kind -> the file by which its folder is known."""


def write_report(path: Path, output: Path | None = None) -> Path:
    """Write the page of a store, a run, a folder of runs, an evaluation, a study or an audit.

    `output` is a file, or a folder that gets ``report.html``; by default it is
    ``pairs.report/report.html`` beside a store, ``report.html`` in the folder of a run, and of an
    evaluation, a study or an audit the ``index.html`` that it wrote itself. The page's path is
    returned.

    Raises
    ------
    ConfigError
        If the path is none of these.
    StoreError
        If it is a store that cannot be read.
    """
    target = output / PAGE_NAME if output is not None and output.is_dir() else output
    kind = kind_of(path)
    if kind is None:
        raise ConfigError(_what_else(path))
    module = importlib.import_module(f"wsisr.reporting.{kind}_page")
    written: Path = getattr(module, f"write_{kind}_report")(path, target)
    return written


def kind_of(path: Path) -> str | None:
    """What lies at a path: store, run, evaluation, study, audit or runs; None: none of these."""
    if is_store(path):
        return "store"
    for kind, name in MARKS.items():
        if (path / name).is_file():
            return kind
    if path.is_dir() and any((entry / RUN_NAME).is_file() for entry in path.iterdir()):
        return "runs"
    return None


def _what_else(path: Path) -> str:
    known = (
        "reports are written of a pair store (pairs.zarr), a training run or a folder of runs "
        "(runs/), an evaluation (eval/), a study and an audit"
    )
    if url_of(path) is not None:
        return f"{url_of(path)} is no pair store; {known}."
    if not path.exists():
        return f"{path} does not exist; {known}."
    if path.is_file():
        return f"{path} is a file; {known}. To look at a slide, use wsisr inspect."
    if path.with_name(path.name + ".partial").exists() or path.name.endswith(".partial"):
        return f"{path} is an unfinished build; run the same wsisr build-pairs command again."
    return f"{path} is none of these: {known}."
