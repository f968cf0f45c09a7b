"""A small folder that looks like CAMELYON16 and is true to the pixel.

Eight slides of about 40 Mpx: Philips-like TIFF at 0.243 um/px without an objective tag, tumours
outlined in ASAP XML, levels displaced against level 0 by known whole pixels. In the flat layout all
slides lie together with their annotations beside them; the official one is the challenge's::

    training/normal/normal_001.tif          testing/images/test_001.tif
    training/tumor/tumor_001.tif            testing/lesion_annotations/test_001.xml
    training/lesion_annotations/tumor_001.xml   testing/reference.csv

``truth.json`` in the root holds every slide's `SlideTruth`.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Literal
from xml.sax.saxutils import quoteattr

import numpy as np

from wsisr.errors import ConfigError
from wsisr.progress import ProgressEvent, Reporter, silent
from wsisr.testing.levels import LevelShift
from wsisr.testing.scene import Outline
from wsisr.testing.shapes import blob
from wsisr.testing.slides import write_slide
from wsisr.testing.spec import SlideSpec, outline
from wsisr.testing.truth import SlideTruth

CamelyonLayout = Literal["flat", "official"]
UM_PER_PX = 0.243
LARGEST_SHIFT_PX = 11
"""At the 10x level; the search of PathImgSR's registration reaches 13."""


def plan_camelyon16_like(
    *, normals: int = 3, tumours: int = 3, tests: int = 2, side_px: int = 6144, seed: int = 16
) -> dict[str, SlideSpec]:
    """Which slides the folder gets (pure): ``normal_001``, ``tumor_001``, ``test_001``, ...

    Parameters
    ----------
    normals, tumours, tests : int
        Numbers of slides; every other test slide has a tumour, the first one too.
    side_px : int
        Typical side; actual sides lie within 18 % and are whole tiles.
    """
    names = [(f"normal_{n:03d}", False) for n in range(1, normals + 1)]
    names += [(f"tumor_{n:03d}", True) for n in range(1, tumours + 1)]
    names += [(f"test_{n:03d}", n % 2 == 1) for n in range(1, tests + 1)]
    return {name: _spec(seed * 1000 + k, tumour, side_px) for k, (name, tumour) in enumerate(names)}


def _spec(seed: int, tumour: bool, side_px: int) -> SlideSpec:
    rng = np.random.default_rng((seed, 16))
    # A slide with both classes needs more room to offer as many patches of each.
    side = side_px * (1.13 if tumour else 0.9)
    width, height = (512 * round(side * rng.uniform(0.96, 1.04) / 512) for _ in range(2))
    middle = width / 2, height / 2
    tissue = blob(rng, middle, (0.455 * width, 0.455 * height), 0.04, 240, power=4.0)
    holes = []
    for _ in range(int(width * height / 700_000)):
        # Fat cells in clusters along the rim of the node.
        rim = tissue[rng.integers(len(tissue))] - middle
        at = np.asarray(middle) + rng.uniform(0.9, 1.0) * rim
        for _ in range(int(rng.integers(1, 4))):
            size = rng.uniform(60, 150)
            where = (at[0] + rng.normal(0, 180), at[1] + rng.normal(0, 180))
            holes.append(blob(rng, where, (size, size * rng.uniform(0.8, 1)), 0.1, vertices=32))
    areas: list[Outline] = []
    gaps: list[Outline] = []
    if tumour:
        side = rng.choice([-1.0, 1.0])
        nest = (middle[0] + side * 0.215 * width, middle[1])
        areas.append(outline(blob(rng, nest, (0.205 * width, 0.40 * height), 0.03, power=4.0)))
        small = (middle[0] - side * 0.12 * width, middle[1] + 0.39 * height)
        areas.append(outline(blob(rng, small, (0.05 * width, 0.03 * height), 0.1, vertices=48)))
        gap = (nest[0] + side * 0.13 * width, nest[1] + rng.uniform(-0.12, 0.12) * height)
        gaps.append(outline(blob(rng, gap, (0.03 * width, 0.04 * height), 0.1, vertices=48)))
    reach = LARGEST_SHIFT_PX
    shifts = tuple(
        LevelShift(
            factor=f,
            x_px=float(rng.integers(-limit, limit + 1)),
            y_px=float(rng.integers(-limit, limit + 1)),
        )
        for f, limit in ((2, 4), (4, reach), (8, reach), (16, reach))
    )
    return SlideSpec(
        seed=seed,
        layout="philips",
        width_px=width,
        height_px=height,
        um_per_px=UM_PER_PX,
        factors=(1, 2, 4, 8, 16),
        tissue=(outline(tissue),),
        holes=tuple(outline(h) for h in holes),
        tumour=tuple(areas),
        exclusions=tuple(gaps),
        shifts=shifts,
        quality=70,
        background="shared",
    )


def write_camelyon16_like(
    folder: Path,
    *,
    layout: CamelyonLayout = "flat",
    normals: int = 3,
    tumours: int = 3,
    tests: int = 2,
    side_px: int = 6144,
    seed: int = 16,
    report: Reporter = silent,
) -> dict[str, SlideTruth]:
    """Write a CAMELYON16-like folder.

    Parameters
    ----------
    folder : Path
        Created; must not hold anything yet.
    layout : {"flat", "official"}
    normals, tumours, tests, side_px, seed
        As `plan_camelyon16_like`.
    report : Reporter
        Gets an event after every slide.

    Returns
    -------
    dict of str to SlideTruth
        By slide name, sorted; also in ``truth.json``.

    Raises
    ------
    ConfigError
        If the folder is not empty or the layout is unknown.
    """
    if layout not in ("flat", "official"):
        raise ConfigError(f"layout {layout!r} is unknown; it is flat or official.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ConfigError(f"{folder}: this folder is not empty; name a new one.")
    plan = plan_camelyon16_like(
        normals=normals, tumours=tumours, tests=tests, side_px=side_px, seed=seed
    )
    truths = {}
    for done, (name, spec) in enumerate(plan.items(), start=1):
        where, xml = _places(folder, layout, name)
        where.mkdir(parents=True, exist_ok=True)
        path = where / f"{name}.tif"
        truth = write_slide(path, spec)
        truths[name] = replace(truth, file=path.relative_to(folder).as_posix())
        if spec.tumour:
            xml.mkdir(parents=True, exist_ok=True)
            # The challenge's files use two ways of naming groups.
            named = done % 2 == 0
            text = asap_xml(truth, *(("Tumor", "Exclusion") if named else ("_0", "_2")))
            (xml / f"{name}.xml").write_text(text, encoding="utf-8")
        report(ProgressEvent(stage="generate", done=done, total=len(plan), unit="slide", item=name))
    if layout == "official" and tests:
        rows = [
            f"{name},{'Tumor,IDC,Macro' if spec.tumour else 'Normal,None,None'}\n"
            for name, spec in plan.items()
            if name.startswith("test")
        ]
        (folder / "testing" / "reference.csv").write_text("".join(rows), encoding="utf-8")
    truths = dict(sorted(truths.items()))
    record = {"slides": {name: truth.to_json() for name, truth in truths.items()}}
    (folder / "truth.json").write_text(json.dumps(record) + "\n", encoding="utf-8")
    return truths


def load_truths(folder: Path) -> dict[str, SlideTruth]:
    """Read the ``truth.json`` of a folder that `write_camelyon16_like` wrote."""
    record = json.loads((Path(folder) / "truth.json").read_text(encoding="utf-8"))
    return {name: SlideTruth.from_json(data) for name, data in record["slides"].items()}


def _places(folder: Path, layout: CamelyonLayout, name: str) -> tuple[Path, Path]:
    """Folders of a slide and of its annotation."""
    if layout == "flat":
        return folder, folder
    if name.startswith("test"):
        return folder / "testing" / "images", folder / "testing" / "lesion_annotations"
    kind = name.partition("_")[0]
    return folder / "training" / kind, folder / "training" / "lesion_annotations"


def asap_xml(truth: SlideTruth, tumour_group: str, hole_group: str) -> str:
    """ASAP annotations of a slide's tumour.

    Parameters
    ----------
    tumour_group, hole_group : str
        ``"Tumor"`` and ``"Exclusion"``, or ``"_0"`` and ``"_2"``; every area after the first is
        then in ``"_1"``.
    """
    areas = [(tumour_group, ring) for ring in truth.scene.tumour]
    if tumour_group == "_0":
        areas = [("_1" if n else "_0", ring) for n, (_, ring) in enumerate(areas)]
    areas += [(hole_group, ring) for ring in truth.scene.exclusions]
    lines = ['<?xml version="1.0"?>', "<ASAP_Annotations>", "\t<Annotations>"]
    for number, (group, ring) in enumerate(areas):
        lines.append(
            f'\t\t<Annotation Name="Annotation {number}" Type="Polygon" '
            f'PartOfGroup={quoteattr(group)} Color="#F4FA58">'
        )
        lines.append("\t\t\t<Coordinates>")
        lines += [
            f'\t\t\t\t<Coordinate Order="{order}" X="{x:.4f}" Y="{y:.4f}" />'
            for order, (x, y) in enumerate(ring)
        ]
        lines += ["\t\t\t</Coordinates>", "\t\t</Annotation>"]
    lines += ["\t</Annotations>", "\t<AnnotationGroups>"]
    lines += [
        f'\t\t<Group Name={quoteattr(group)} PartOfGroup="None" Color="#64FE2E">'
        "<Attributes /></Group>"
        for group in sorted({group for group, _ in areas})
    ]
    return "\n".join([*lines, "\t</AnnotationGroups>", "</ASAP_Annotations>", ""])
