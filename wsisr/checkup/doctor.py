"""Is this machine, and is this slide, fit for a build? PASS, WARN or FAIL with the fix in words."""

import importlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from wsisr.building.manifest import load_manifest, manifest_names
from wsisr.errors import WsisrError
from wsisr.host import available_bytes, installed_version, usable_cores
from wsisr.magnification import nominal_magnification
from wsisr.slides import colour_check, open_slide


class Status(StrEnum):
    PASS = "PASS"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the doctor.

    Attributes
    ----------
    detail : str
        What was found.
    fix : str
        What to do; empty for PASS.
    """

    name: str
    status: Status
    detail: str
    fix: str = ""

    def line(self) -> str:
        return f"{self.status}  {self.name}: {self.detail}" + (
            f"\n      {self.fix}" if self.fix else ""
        )


MODULES = (
    ("numpy", "numpy"),
    ("cv2", "opencv-python-headless"),
    ("tifffile", "tifffile"),
    ("imagecodecs", "imagecodecs"),
    ("simplejpeg", "simplejpeg"),
    ("openslide", "openslide-python and openslide-bin"),
    ("tiffslide", "tiffslide"),
    ("pydicom", "pydicom"),
    ("zarr", "zarr"),
    ("shapely", "shapely"),
)


OPENCV = (
    "opencv-python-headless",
    "opencv-python",
    "opencv-contrib-python-headless",
    "opencv-contrib-python",
)


def examine(folder: Path, slide: Path | None = None) -> Iterator[Check]:
    """All checks, in order, as they are done.

    Parameters
    ----------
    folder : Path
        Where a store would be written.
    slide : Path, optional
        A slide to check as well.
    """
    yield _python()
    for module, package in MODULES:
        yield _module(module, package)
    yield _opencv()
    yield _torch()
    yield _guard("small codec", _small_codec, "reinstall imagecodecs and wsisr")
    yield _guard("manifests", _manifests, "reinstall wsisr")
    yield _disk(folder)
    yield _cores()
    yield _memory()
    if slide is not None:
        yield from _slide(slide)


def _python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    return Check(name="python", status=Status.PASS, detail=found)


def _module(module: str, package: str) -> Check:
    try:
        loaded = importlib.import_module(module)
    except Exception as error:
        return Check(
            name=module,
            status=Status.FAIL,
            detail=f"cannot be imported: {error}",
            fix=f"pip install {package.replace(' and ', ' ')}",
        )
    return Check(
        name=module, status=Status.PASS, detail=str(getattr(loaded, "__version__", "imported"))
    )


def _opencv() -> Check:
    """All distributions of OpenCV write the same folder, the last one over the others."""
    there = [name for name in OPENCV if installed_version(name) is not None]
    if len(there) < 2:
        return Check(name="opencv", status=Status.PASS, detail=there[0] if there else "unknown")
    kept = OPENCV[0] if OPENCV[0] in there else there[0]
    return Check(
        name="opencv",
        status=Status.FAIL,
        detail=f"{' and '.join(there)} are installed into one folder, each over the other's files",
        fix=f"pip uninstall -y {' '.join(there)} && pip install {kept}=={installed_version(kept)}",
    )


def _memory() -> Check:
    free = available_bytes() / 1e9
    if free < 4:
        return Check(
            name="memory",
            status=Status.WARN,
            detail=f"{free:.1f} GB can be taken",
            fix="build with fewer --workers (0.5 to 1 GB each), upscale with a smaller --tile",
        )
    return Check(name="memory", status=Status.PASS, detail=f"{free:.0f} GB can be taken")


def _torch() -> Check:
    """Looked up, not imported: builds do not need it and it takes seconds."""
    try:
        return Check(name="torch", status=Status.PASS, detail=version("torch"))
    except PackageNotFoundError:
        return Check(
            name="torch",
            status=Status.WARN,
            detail="not installed: build-pairs works, training and evaluation do not",
            fix="pip install torch",
        )


def _guard(name: str, probe: Callable[[], str], fix: str) -> Check:
    try:
        return Check(name=name, status=Status.PASS, detail=probe())
    except Exception as error:
        return Check(name=name, status=Status.FAIL, detail=str(error), fix=fix)


def _small_codec() -> str:
    from wsisr.store.presets import decode_htj2k, encode_htj2k

    tile = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    if not np.array_equal(decode_htj2k(encode_htj2k(tile), tile.shape), tile):
        raise RuntimeError("the lossless codec does not return what it was given")
    return "HTJ2K returns its pixels bit for bit"


def _manifests() -> str:
    names = manifest_names()
    for name in names:
        load_manifest(name)
    return f"{len(names)} built in ({', '.join(names)})"


def _disk(folder: Path) -> Check:
    existing = next(p for p in (folder.resolve(), *folder.resolve().parents) if p.exists())
    free = shutil.disk_usage(existing).free / 1e9
    try:
        with tempfile.NamedTemporaryFile(dir=existing):
            pass
    except OSError as error:
        return Check(
            name="disk",
            status=Status.FAIL,
            detail=f"{existing} cannot be written: {error.strerror}",
            fix="choose another folder with -o",
        )
    if free < 20:
        return Check(
            name="disk",
            status=Status.WARN,
            detail=f"{free:.1f} GB free at {existing}",
            fix="12,000 pairs of 1024 px take 40 GB with --codec raw, about half with small, an "
            "eighth or so with slide",
        )
    return Check(name="disk", status=Status.PASS, detail=f"{free:.0f} GB free at {existing}")


def _cores() -> Check:
    return Check(name="cores", status=Status.PASS, detail=f"{usable_cores()} usable")


def _slide(path: Path) -> Iterator[Check]:
    try:
        slide = open_slide(path)
    except WsisrError as error:
        yield Check(
            name="slide", status=Status.FAIL, detail=str(error), fix="see the message above"
        )
        return
    with closing(slide):
        info = slide.info
        yield Check(
            name="slide",
            status=Status.PASS,
            detail=f"{info.vendor}, {len(info.levels)} levels, read by {info.backend}",
        )
        yield _resolution(info.mpp.value if info.mpp else None, info.mpp_problem)
        inexact = [str(level.index) for level in info.levels if not level.exact]
        yield Check(
            name="levels",
            status=Status.WARN if inexact else Status.PASS,
            detail=f"levels {', '.join(inexact)} cannot be read exactly"
            if inexact
            else "every level is read bit for bit",
            fix="they are made from level 0 instead" if inexact else "",
        )
        verdict = info.verdict
        assert verdict is not None
        fixes = {
            "agree": "",
            "differ": "every command uses OpenSlide; report the slide",
            "unchecked": "a build takes it with --unchecked accept only",
        }
        yield Check(
            name="second reader",
            status={"agree": Status.PASS, "differ": Status.FAIL}.get(verdict.status, Status.WARN),
            detail=verdict.detail,
            fix=fixes[verdict.status],
        )
        fault = colour_check(slide)
        yield Check(
            name="colour",
            status=Status.FAIL if fault else Status.PASS,
            detail=fault or "plausible",
            fix="convert the file anew from its source" if fault else "",
        )


def _resolution(value: float | None, problem: str) -> Check:
    if value is None:
        return Check(
            name="resolution",
            status=Status.FAIL,
            detail=problem,
            fix="give it with --mpp-override CSV (columns slide,mpp)",
        )
    nominal = nominal_magnification(value)
    if nominal is None:
        return Check(
            name="resolution",
            status=Status.WARN,
            detail=f"{value:.4g} um/px is none of 80x, 40x, 20x, 10x, 5x",
            fix="ask for a physical resolution with --mpp",
        )
    return Check(name="resolution", status=Status.PASS, detail=f"{value:.4g} um/px, {nominal}x")
