"""Pairs from ready-made images: each is one slide of one level, or one row of a stack.

Where every pixel counts (tissue method `none`) places follow from the image's size; else tissue is
found as on slides.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from math import ceil
from pathlib import Path
from typing import Any, Self

import numpy as np

from wsisr.arrays import BoolArray, Int64Array
from wsisr.building.layout import Layout, SlideTask
from wsisr.building.manifest import Manifest
from wsisr.building.scan_records import RankedCandidates, Reading
from wsisr.building.sources.image_sets import list_images
from wsisr.building.sources.levels import Levels, confirmed
from wsisr.building.sources.places import sampled_origins
from wsisr.building.sources.protocol import Survey
from wsisr.errors import SlideError
from wsisr.geometry import PatchGeometry
from wsisr.magnification import MppSource, make_mpp, parse_magnification
from wsisr.selection.candidates import grid_candidates, ranked_order
from wsisr.selection.image_labels import annotation_attribute, field_classes
from wsisr.slides.stack import ImageStack, open_stack

DECLARED = "manifest"
"""Source of a resolution that the manifest declares for its images."""
MASK_UM_PER_PX = 8.0


class Images(Levels):
    """One image, or a stack of them; implements `Source`.

    A stack's LR is made from its HR patches: their neighbours are other images.
    """

    _declares_mpp = False

    @staticmethod
    def list(source: Path, manifest: Manifest) -> Layout:
        return list_images(source, manifest)

    @classmethod
    def open(cls, task: SlideTask, manifest: Manifest, backend: str | None = None) -> Self:
        if isinstance(task.detail, ImageStack):
            stack = open_stack(task.source.path, task.detail, manifest.size, manifest.white)
            return cls(task, manifest, stack)
        return super().open(task, manifest, backend)._declared()

    @classmethod
    def open_checked(cls, task: SlideTask, manifest: Manifest) -> Self:
        if isinstance(task.detail, ImageStack):
            opened = cls.open(task, manifest)
            opened.notes = confirmed(opened.slides[0].info, manifest)
            return opened
        return super().open_checked(task, manifest)._declared()

    def _declared(self) -> Self:
        """With the manifest's resolution where the file states none."""
        rule, slide = self.manifest.images, self.slides[0]
        if rule is None or rule.mpp is None or slide.info.mpp is not None:
            return self
        self.close()
        task = replace(self.task, mpp=rule.mpp)
        # Named by the caller, a reader is named again; a verdict is taken from the cache.
        backend = slide.info.backend if slide.info.verdict is None else None
        opened = super().open(task, self.manifest, backend)
        opened.notes, opened._declares_mpp = self.notes, True
        return opened

    @property
    def _stack(self) -> ImageStack | None:
        return self.task.detail if isinstance(self.task.detail, ImageStack) else None

    @property
    def _from_patch(self) -> bool:
        return self._stack is not None or super()._from_patch

    def places(self, geometry: PatchGeometry, root: Path) -> Survey:
        if self.manifest.tissue.method != "none":
            return super().places(geometry, root)
        slide = self.slides[0]
        if self._stack is None:
            origins = sampled_origins(slide, geometry, self.task, self.manifest)
        elif geometry.hr.factor != 1.0:
            raise SlideError(
                f"{self.task.slide_id}: a stack's images are its HR patches; set hr to the "
                "magnification that the manifest declares for them."
            )
        else:
            # One origin per image, in its order, without those of the unfinished last row.
            origins = grid_candidates(geometry, slide.info)[: len(self._stack)]
        candidates, funnel = self._candidates(geometry, origins)
        mask, um_per_px = self._mask()
        return Survey(
            reading=Reading(geometry=geometry),
            candidates=candidates,
            funnel=funnel,
            mask=mask,
            tissue={"kind": "image", "um_per_px": um_per_px},
            tissue_um_per_px=um_per_px,
            overview_px=slide.info.levels[0].width_px,
        )

    def _candidates(
        self, geometry: PatchGeometry, origins: Int64Array
    ) -> tuple[RankedCandidates, dict[str, int]]:
        """Places best rank first, and the funnel."""
        task, manifest = self.task, self.manifest
        if not len(origins):
            level = self.slides[0].info.levels[0]
            raise SlideError(
                f"{task.slide_id}: the image is {level.width_px} x {level.height_px} px, smaller "
                f"than one patch of {geometry.field_px} px; choose a smaller size."
            )
        classes = manifest.labels.classes
        number = [
            classes.index(name) if name in classes else -1
            for name in self._labels(origins, geometry.field_px)
        ]
        order = ranked_order(manifest.seed, task.draw_key, origins)
        chosen = [i for i in order.tolist() if number[i] >= 0 or not manifest.labels.required]
        ranked = RankedCandidates(
            x=tuple(origins[chosen, 0].tolist()),
            y=tuple(origins[chosen, 1].tolist()),
            label=tuple(number[i] for i in chosen),
            label_fraction=tuple(float(number[i] >= 0) for i in chosen),
            tissue=(1.0,) * len(chosen),
            texture=(0.0,) * len(chosen),
        )
        return ranked, {"candidates": len(origins), "label": len(chosen)}

    def _labels(self, origins: Int64Array, field_px: int) -> Sequence[str]:
        file = self.task.annotation
        if self._stack is not None and self._stack.labels:
            return self._stack.labels
        if file is not None and file.suffix.lower() == ".mat":
            return field_classes(file, origins, field_px, self.manifest.labels.classes)
        return [self.task.label] * len(origins)

    def _mask(self) -> tuple[BoolArray, float]:
        """A mask that counts everything, and its um/px."""
        info = self.slides[0].info
        if info.mpp is not None:
            mpp = info.mpp.value
        else:
            declared = self.manifest.images.magnification if self.manifest.images else None
            mpp = 10.0 / parse_magnification(declared or self.manifest.hr)
        factor = max(1.0, MASK_UM_PER_PX / mpp)
        level = info.levels[0]
        shape = (ceil(level.height_px / factor - 1e-9), ceil(level.width_px / factor - 1e-9))
        return np.ones(shape, np.bool_), mpp * factor

    def attributes(self, reading: Reading, root: Path) -> dict[str, Any]:
        extras: dict[str, Any] = {}
        mpp = self.slides[0].info.mpp
        if self._declares_mpp and mpp is not None:
            value = make_mpp(mpp.value, mpp.value, MppSource.OVERRIDE)
            extras["mpp"] = asdict(value) | {"source": DECLARED}
        if self.task.annotation is not None and self.manifest.tissue.method == "none":
            extras["annotation"] = annotation_attribute(self.task.annotation, root)
        if self._stack is not None:
            extras["images"] = len(self._stack)
        return extras
