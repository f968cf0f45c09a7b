"""How an output was made, read back from what it says of itself."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tifffile
from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from wsisr.errors import ConfigError
from wsisr.geometry import Box
from wsisr.inference.tiles import Frame, plan_frame
from wsisr.slides.protocol import SlideInfo
from wsisr.upscaling.audit.misfit import step_of
from wsisr.upscaling.job import UpscaleJob
from wsisr.upscaling.ome import NAMESPACE, PROVENANCE
from wsisr.upscaling.source import Plane, plan_plane, plane_region, plane_that_is

_LONGEST = 1 << 20
_LEVEL = re.compile(r"(\d{1,3})(?: reduced ([0-9.]{1,20}) times)?")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the px of an output come from.

    Attributes
    ----------
    plane : Plane
        Of the input.
    model, trained_on, weights_sha256 : str
        Name, degradation it was trained on, and its weights; empty where the output does not say.
    stated : bool
        Whether the output said all this, and not the user.
    """

    plane: Plane
    frame: Frame
    model: str
    trained_on: str
    stated: bool
    weights_sha256: str = ""

    @classmethod
    def of(cls, job: UpscaleJob) -> "Origin":
        """What `wsisr upscale` is about to make."""
        return cls(
            plane=job.plane,
            frame=job.frame,
            model=job.identity["model"],
            trained_on=_known(job.identity),
            stated=True,
            weights_sha256=job.identity.get("weights_sha256", ""),
        )

    @property
    def scale(self) -> float:
        """The scale that was asked for, from sizes that are rounded to whole px; ConfigError for no
        ratio of small whole numbers."""
        frame = self.frame
        step = step_of(round(frame.scale_x, 3))
        drift = max(
            abs(frame.lr_width_px * step.numerator / step.denominator - frame.width_px),
            abs(frame.lr_height_px * step.numerator / step.denominator - frame.height_px),
        )
        if drift > 0.5:
            raise ConfigError(
                f"{frame.width_px} x {frame.height_px} px of output on {frame.lr_width_px} x "
                f"{frame.lr_height_px} px of input are no scale that can be audited."
            )
        return step.numerator / step.denominator


def stated_facts(output: Path) -> dict[str, str]:
    """The provenance in an OME-TIFF or OME-Zarr of `wsisr upscale`; empty where there is none."""
    text = ""
    if output.is_dir():
        root = output / "zarr.json"
        if root.is_file() and root.stat().st_size <= _LONGEST:
            try:
                document = json.loads(root.read_text(encoding="utf-8"))
                text = str(document["attributes"]["wsisr"]["description"])
            except (ValueError, KeyError, TypeError, RecursionError):
                return {}
    else:
        try:
            with tifffile.TiffFile(output) as file:
                text = str(file.pages.first.description)
        except Exception:  # any file may be audited, whatever tifffile makes of it
            return {}
    if PROVENANCE not in text or len(text) > _LONGEST:
        return {}
    try:
        root_element = ElementTree.fromstring(text.encode("utf-8"))
    except (ElementTree.ParseError, DefusedXmlException, ValueError):
        return {}
    facts = {}
    for mapping in root_element.iter(f"{{{NAMESPACE}}}MapAnnotation"):
        if mapping.get("Namespace") == PROVENANCE:
            for item in mapping.iter(f"{{{NAMESPACE}}}M"):
                facts[str(item.get("K"))] = item.text or ""
    return facts


def find_origin(
    output: Path,
    low: SlideInfo,
    made: SlideInfo,
    *,
    scale: float | None = None,
    magnification: float | None = None,
) -> Origin:
    """Which px of the input each px of the output belongs to.

    Parameters
    ----------
    low, made : SlideInfo
        Of the input and of the output.
    scale, magnification : float, optional
        For an output that does not say how it was made: as it was given to `wsisr upscale`.

    Raises
    ------
    ConfigError
        The input is another file; the output does not say how it was made, and no scale is given;
        a magnification without a scale; the sizes contradict.
    """
    if magnification is not None and scale is None:
        raise ConfigError("--from says what was enlarged by --scale; give both, or neither.")
    facts = stated_facts(output)
    if facts and scale is None:
        if facts.get("input_fingerprint") != low.fingerprint:
            raise ConfigError(
                f"{output} was made from {facts.get('input', 'another file')}, and {low.path} is "
                "not that file (size or content differ); give it with --lr, or, if it is the same "
                "picture in another file, say --scale."
            )
        found = _LEVEL.fullmatch(facts.get("input_level", ""))
        try:
            wanted = float(facts["scale"])
            assert found is not None
            plane = plane_that_is(low, int(found[1]), float(found[2] or 1.0))
            region = _region(facts.get("region_level0_px", ""))
        except (AssertionError, KeyError, ValueError, IndexError):
            raise ConfigError(
                f"{output}: what it says of how it was made cannot be read; give --scale and "
                "--from."
            ) from None
    elif scale is None:
        raise ConfigError(
            f"{output} does not say how it was made (it is no OME-TIFF or OME-Zarr of wsisr's); "
            "give --scale, and --from where the input's finest level was not what was enlarged."
        )
    else:
        wanted, region = scale, None
        plane = plan_plane(low, magnification=magnification)
    part = None if region is None else plane_region(plane, region)
    frame = plan_frame(plane.width_px, plane.height_px, wanted, part)
    base = made.levels[0]
    if (base.width_px, base.height_px) != (frame.region.width, frame.region.height):
        raise ConfigError(
            f"{output} has {base.width_px} x {base.height_px} px, and x{wanted:g} of "
            f"{plane.width_px} x {plane.height_px} px gives {frame.region.width} x "
            f"{frame.region.height}: it was made from something else."
        )
    return Origin(
        plane=plane,
        frame=frame,
        model=facts.get("model", ""),
        trained_on=_known(facts),
        stated=bool(facts) and scale is None,
        weights_sha256=facts.get("weights_sha256", ""),
    )


def _known(facts: Mapping[str, Any]) -> str:
    """What the model was trained on; empty where that is not recorded."""
    return str(facts.get("trained_on_degradation", "")).replace("not recorded", "")


def _region(text: str) -> Box | None:
    if not text:
        return None
    x, y, width, height = (int(field) for field in text.split(","))
    return Box(x=x, y=y, width=width, height=height)
