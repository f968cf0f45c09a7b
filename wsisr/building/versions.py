"""Versions of what pixels depend on."""

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "wsisr",
    "numpy",
    "scipy",
    "opencv-python-headless",
    "opencv-python",
    "imagecodecs",
    "simplejpeg",
    "tifffile",
    "pydicom",
    "openslide-python",
    "openslide-bin",
    "tiffslide",
    "shapely",
)


def package_versions() -> dict[str, str]:
    """Name -> version of Python and of every installed package that decides about pixels."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
