"""Opening the source of a task, whatever it is: a slide, a plain image, a stack of images."""

from dataclasses import asdict
from typing import Any

from wsisr.building.layout import SlideTask
from wsisr.building.manifest import Manifest
from wsisr.building.stack import open_stack
from wsisr.magnification import MppSource, make_mpp
from wsisr.slides import SelfCheck, Slide, SlideInfo, open_checked_slide, open_slide

DECLARED = "manifest"
"""Source of a resolution that the manifest declares for its images."""


def open_task(task: SlideTask, manifest: Manifest, backend: str | None = None) -> Slide:
    """Open what a task names; see `wsisr.slides.open_slide`."""
    if task.stack is not None:
        return open_stack(task.source.path, task.stack, manifest.size)
    return open_slide(task.source.path, backend=backend, mpp=task.mpp, icc=manifest.icc)


def open_checked_task(task: SlideTask, manifest: Manifest) -> tuple[Slide, SelfCheck]:
    """The same with the best reader that a second one agrees with, where there are two."""
    if task.stack is not None:
        detail = f"{task.slide_id} is a stack of images; its pixels are not cross-checked."
        check = SelfCheck(agrees=True, second_backend=None, detail=detail)
        return open_task(task, manifest), check
    return open_checked_slide(task.source.path, seed=manifest.seed, mpp=task.mpp, icc=manifest.icc)


def declared_mpp(info: SlideInfo, manifest: Manifest) -> float | None:
    """The manifest's resolution in um/px for an image that states none; None otherwise."""
    if info.mpp is not None or manifest.images is None:
        return None
    return manifest.images.mpp


def declared_attribute(um_per_px: float) -> dict[str, Any]:
    """The store's `mpp` of an image whose resolution the manifest declares."""
    return asdict(make_mpp(um_per_px, um_per_px, MppSource.OVERRIDE)) | {"source": DECLARED}
