"""Is this machine, and is this slide, fit for a build? PASS, WARN or FAIL with the fix in words."""

import importlib
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
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


def _pass(name: str, detail: str) -> Check:
    return Check(name=name, status=Status.PASS, detail=detail)


def _warn(name: str, detail: str, fix: str) -> Check:
    return Check(name=name, status=Status.WARN, detail=detail, fix=fix)


def _fail(name: str, detail: str, fix: str) -> Check:
    return Check(name=name, status=Status.FAIL, detail=detail, fix=fix)


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
    yield _pass("python", platform.python_version())
    for module, package in MODULES:
        yield _module(module, package)
    yield _opencv()
    yield _torch()
    yield _guard("small codec", _small_codec, "reinstall imagecodecs and wsisr")
    yield _guard("manifests", _manifests, "reinstall wsisr")
    yield _disk(folder)
    yield _pass("cores", f"{usable_cores()} usable")
    yield _memory()
    if slide is not None:
        yield from _slide(slide)


def _module(module: str, package: str) -> Check:
    try:
        loaded = importlib.import_module(module)
    except Exception as error:
        fix = f"pip install {package.replace(' and ', ' ')}"
        return _fail(module, f"cannot be imported: {error}", fix)
    return _pass(module, str(getattr(loaded, "__version__", "imported")))


def _opencv() -> Check:
    """All distributions of OpenCV write the same folder, the last one over the others."""
    there = [name for name in OPENCV if installed_version(name) is not None]
    if len(there) < 2:
        return _pass("opencv", there[0] if there else "unknown")
    kept = OPENCV[0] if OPENCV[0] in there else there[0]
    return _fail(
        "opencv",
        f"{' and '.join(there)} are installed into one folder, each over the other's files",
        f"pip uninstall -y {' '.join(there)} && pip install {kept}=={installed_version(kept)}",
    )


def _memory() -> Check:
    free = available_bytes() / 1e9
    if free < 4:
        fix = "build with fewer --workers (0.5 to 1 GB each), upscale with a smaller --tile"
        return _warn("memory", f"{free:.1f} GB can be taken", fix)
    return _pass("memory", f"{free:.0f} GB can be taken")


def _torch() -> Check:
    """Looked up, not imported: builds do not need it and it takes seconds."""
    found = installed_version("torch")
    if found is not None:
        return _pass("torch", found)
    lacking = "not installed: build-pairs works, training and evaluation do not"
    return _warn("torch", lacking, "pip install torch")


def _guard(name: str, probe: Callable[[], str], fix: str) -> Check:
    try:
        return _pass(name, probe())
    except Exception as error:
        return _fail(name, str(error), fix)


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
        detail = f"{existing} cannot be written: {error.strerror}"
        return _fail("disk", detail, "choose another folder with -o")
    if free < 20:
        return _warn(
            "disk",
            f"{free:.1f} GB free at {existing}",
            "12,000 pairs of 1024 px take 40 GB with --codec raw, about half with small, an "
            "eighth or so with slide",
        )
    return _pass("disk", f"{free:.0f} GB free at {existing}")


def _slide(path: Path) -> Iterator[Check]:
    try:
        slide = open_slide(path)
    except WsisrError as error:
        yield _fail("slide", str(error), "see the message above")
        return
    with closing(slide):
        info = slide.info
        yield _pass("slide", f"{info.vendor}, {len(info.levels)} levels, read by {info.backend}")
        yield _resolution(info.mpp.value if info.mpp else None, info.mpp_problem)
        inexact = ", ".join(str(level.index) for level in info.levels if not level.exact)
        if inexact:
            fix = "they are made from level 0 instead"
            yield _warn("levels", f"levels {inexact} cannot be read exactly", fix)
        else:
            yield _pass("levels", "every level is read bit for bit")
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
        if fault:
            yield _fail("colour", fault, "convert the file anew from its source")
        else:
            yield _pass("colour", "plausible")


def _resolution(value: float | None, problem: str) -> Check:
    if value is None:
        return _fail("resolution", problem, "give it with --mpp-override CSV (columns slide,mpp)")
    nominal = nominal_magnification(value)
    if nominal is None:
        detail = f"{value:.4g} um/px is none of 80x, 40x, 20x, 10x, 5x"
        return _warn("resolution", detail, "ask for a physical resolution with --mpp")
    return _pass("resolution", f"{value:.4g} um/px, {nominal}x")
