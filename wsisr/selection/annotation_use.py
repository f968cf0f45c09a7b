"""What the areas of an annotation file mean under a manifest's classes."""

from collections import Counter
from dataclasses import dataclass, replace

import shapely

from wsisr.selection.annotation_formats.names import IGNORED, ClassNames
from wsisr.selection.annotations import Annotations


@dataclass(frozen=True, kw_only=True)
class AnnotationUse:
    """What a file's areas mean under a manifest's classes.

    Attributes
    ----------
    shapes, used, outside : int
        Areas; those of a class that touch the slide; those that do not touch it.
    unknown : dict of str to int
        Objects of labels that mean no class.
    """

    shapes: int
    used: int
    outside: int
    unknown: dict[str, int]

    def sentences(self, classes: tuple[str, ...]) -> list[str]:
        """What a person should know, with numbers; empty where all is in order."""
        found = []
        if self.unknown:
            labels = ", ".join(f"{name!r} ({count})" for name, count in self.unknown.items())
            found.append(
                f"annotations of unknown classes, which label nothing: {labels}; the manifest has "
                f"{', '.join(classes) or 'none'} (labels.synonyms adds other names)"
            )
        if self.outside:
            found.append(
                f"{self.outside} of {self.shapes} annotated areas lie outside of the slide; is the "
                "file of another slide?"
            )
        if not self.used:
            found.append(
                f"its annotation file labels nothing ({self.shapes} areas), so that the slide "
                "counts as one without outlines"
            )
        return found


def as_classes(
    annotations: Annotations, names: ClassNames, size_px: tuple[int, int]
) -> tuple[Annotations, AnnotationUse]:
    """The same areas under a manifest's names, and what of them means something there.

    Parameters
    ----------
    size_px : (int, int)
        Width and height of level 0.

    Returns
    -------
    Annotations
        Labels that mean no class stay what they are.
    AnnotationUse
    """
    frame = shapely.box(0, 0, *size_px)
    regions, used, outside = [], 0, 0
    unknown: Counter[str] = Counter()
    for region in annotations.regions:
        if region.label == IGNORED:
            regions.append(region)
            continue
        label = names.find(region.label, *region.parents)
        lies_off = not shapely.intersects(frame, region.polygon)
        outside += lies_off
        used += label is not None and not lies_off
        if label is None:
            unknown[region.label] += 1
        regions.append(region if label is None else replace(region, label=label))
    for points in annotations.points:
        if names.find(points.label) is None:
            unknown[points.label] += len(points.xy)
    use = AnnotationUse(
        shapes=len(annotations.regions), used=used, outside=outside, unknown=dict(unknown)
    )
    return replace(annotations, regions=tuple(regions)), use
