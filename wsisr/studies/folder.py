"""The folder of a study: its parts, and study.json, which says what it is the study of."""

import json
from pathlib import Path
from typing import Any

from wsisr.errors import ConfigError
from wsisr.files import read_document, replace_file

STUDY_NAME = "study.json"
FORMAT = "wsisr-study"
RUNS = "runs"
EVALUATION = "eval"
_PARTS = ("study", "budget", "store")


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Create or replace it."""
    replace_file(folder / STUDY_NAME, json.dumps({"format": FORMAT, **record}, indent=2).encode())


def read_record(folder: Path) -> dict[str, Any]:
    """Study, budget, store, and failed runs of a folder.

    Raises
    ------
    ConfigError
        Missing, broken, or of something else.
    """
    path = folder / STUDY_NAME
    record = read_document(path, "a study", FORMAT)
    if not all(isinstance(record.get(part), dict) for part in (*_PARTS, "failed")):
        raise ConfigError(f"{path} is broken; remove it and run the study again")
    return record


def claim(folder: Path, identity: dict[str, Any]) -> None:
    """Write what the folder is of, or refuse a folder of something else.

    Raises
    ------
    ConfigError
        It holds another study, budget or store, or other files.
    """
    if not (folder / STUDY_NAME).is_file():
        if folder.is_dir() and any(folder.iterdir()):
            raise ConfigError(f"{folder} is there and holds no study; choose another with -o")
        write_record(folder, {**identity, "failed": {}})
        return
    known = read_record(folder)
    for part in _PARTS:
        if known[part] != identity[part]:
            raise ConfigError(
                f"{folder} holds results of another {part}; choose another folder with -o, or "
                "remove it"
            )
