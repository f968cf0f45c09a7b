"""Why a slide gave no pairs: the rule that emptied it, with its numbers."""

from collections.abc import Mapping
from typing import Any

from wsisr.building.manifest import Manifest
from wsisr.store.reader import SlideView
from wsisr.store.schema import FUNNEL_STEPS


def why_nothing(view: SlideView, manifest: Manifest) -> str:
    """The sentence for a committed slide without kept pairs; empty where nothing is wrong with
    it: its share of the quotas was none.

    Parameters
    ----------
    view : SlideView
    manifest : Manifest
        The store's.
    """
    attributes: Mapping[str, Any] = dict(view.attributes)
    funnel: dict[str, int] = attributes.get("funnel", {})
    steps = [(name, funnel[name]) for name in FUNNEL_STEPS if name in funnel]
    if not steps or funnel.get("kept", 0):
        return ""
    if steps[0][1] == 0:
        return f"no field of {manifest.size} px at {manifest.hr} fits it; choose a smaller --size."
    before = steps[0][1]
    for name, count in steps:
        if count == 0:
            if name == "read":
                return ""
            return _emptied(name, before, attributes, manifest)
        before = count
    return ""


def _emptied(name: str, before: int, attributes: Mapping[str, Any], manifest: Manifest) -> str:
    """The rule behind a step of the funnel that left none of `before` places."""
    tissue: Mapping[str, Any] = attributes.get("tissue", {})
    area = float(tissue.get("tissue_mm2", 0.0))
    if name == "scanned":
        return f"each of {before} fields has pixels that were never scanned, or lie under pen."
    if name == "tissue":
        blank = [flag for flag in tissue.get("flags", ()) if flag.startswith("no tissue")]
        if blank and not area:
            return f"{blank[0]}."
        more = "more than " if manifest.tissue.strict else ""
        return (
            f"none of {before} fields of {manifest.size} px is {more}"
            f"{100 * manifest.tissue.min_fraction:g} % tissue (tissue.min_fraction); the slide has "
            f"{area:.3g} mm2 of it: lower the share, or choose a smaller --size."
        )
    if name == "label":
        classes = ", ".join(manifest.labels.classes) or "a class"
        return (
            f"none of {before} fields is {100 * manifest.labels.min_fraction:g} % of one class "
            f"({classes}; labels.min_fraction): look at its annotation."
        )
    if name == "texture":
        least = manifest.filters.min_texture
        return f"none of {before} fields has a texture of {least:g} (filters.min_texture)."
    if name == "colour":
        limit = manifest.filters.rgb_outlier_sd or 0.0
        return f"each of {before} fields is over {limit:g} deviations off (filters.rgb_outlier_sd)."
    if name in ("registered", "accepted", "kept"):
        reasons = "; ".join(attributes.get("reasons", [])) or "their levels drift apart"
        return f"none of {before} pairs passed registration: {reasons}."
    if name == "inside":
        return (
            f"each of {before} places of {manifest.size} px at {manifest.hr} reaches beyond the "
            "edge of the second scan: choose a smaller --size, or scan the same area twice."
        )
    if name == "whole":
        return f"each of {before} places that were read has pixels that were never scanned."
    return f"none of {before} places was left by the rule {name!r}."
