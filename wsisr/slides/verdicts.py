"""Verdicts of the checked door, kept between commands.

A verdict belongs to a content (fingerprint) and to the readers that gave it (their versions and
our own code), so a changed file or an upgraded library is judged again. What is kept names no
file and no folder. A cache that cannot be written or read is no error: the verdict is computed
again.
"""

import hashlib
import json
import logging
import os
import sys
import tempfile
from dataclasses import asdict
from functools import cache
from pathlib import Path

from wsisr.host import installed_version
from wsisr.slides.protocol import ReaderVerdict, SlideInfo

logger = logging.getLogger(__name__)

FOLDER_VARIABLE = "WSISR_CACHE"
LIBRARIES = (
    "imagecodecs",
    "numpy",
    "opencv-python-headless",
    "openslide-bin",
    "openslide-python",
    "pillow",
    "pydicom",
    "simplejpeg",
    "tifffile",
    "tiffslide",
)


def cache_folder() -> Path:
    """The user's cache folder for wsisr: ``WSISR_CACHE``, or where the system keeps such things."""
    stated = os.environ.get(FOLDER_VARIABLE)
    if stated:
        return Path(stated)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = str(Path.home() / "Library" / "Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "wsisr"


@cache
def reader_versions() -> str:
    """Hash over the versions of every library that reads slides, and over our own readers."""
    digest = hashlib.sha256()
    for name in LIBRARIES:
        digest.update(f"{name} {installed_version(name) or 'none'}\n".encode())
    for module in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(module.read_bytes())
    return digest.hexdigest()


def verdict_key(info: SlideInfo, focal_plane: int | None) -> str:
    """What a verdict is filed under."""
    asked = f"{focal_plane} {info.white}"
    text = f"{info.fingerprint} {info.backend} {asked} {reader_versions()}"
    return hashlib.sha256(text.encode()).hexdigest()


def load_verdict(key: str) -> ReaderVerdict | None:
    """A verdict of an earlier command; None where there is none or it cannot be read."""
    try:
        body = json.loads(_file(key).read_bytes())
        body["levels"] = tuple(body["levels"])
        verdict = ReaderVerdict(**body)
        verdict.line()
        return verdict
    except FileNotFoundError:
        return None
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        logger.debug("a kept verdict cannot be read (%s); judged again", error)
        return None


def save_verdict(key: str, verdict: ReaderVerdict) -> None:
    """Keep a verdict; whole or not at all, and silently not where the folder is not writable."""
    try:
        path = _file(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(asdict(verdict), file)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except (OSError, RuntimeError) as error:  # no home folder is a RuntimeError
        logger.debug("the verdict is not kept: %s", error)


def _file(key: str) -> Path:
    return cache_folder() / "verdicts" / key[:2] / f"{key}.json"
