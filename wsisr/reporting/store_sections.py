"""What each section of a store's page says: facts for the macros of ``templates/store.html``."""

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from wsisr.arrays import UInt8Array
from wsisr.drawing.charts import ChartSeries, chart
from wsisr.drawing.encoding import png_bytes
from wsisr.drawing.fields import funnel as funnel_of
from wsisr.drawing.overlays import patch_overlay, tissue_map
from wsisr.drawing.vector import Chart
from wsisr.files import replace_file
from wsisr.reporting.page import template
from wsisr.reporting.store_facts import StoreFacts
from wsisr.reporting.store_pairs import choose_gallery, read_pair
from wsisr.store.places import Place
from wsisr.store.presets import SLIDE
from wsisr.store.schema import FUNNEL_WORDS, funnel_steps
from wsisr.store.summarise import lr_lines, overrides_of
from wsisr.store.verify_splits import is_declared_leaky

ORIGIN_WORDS = {
    "rescan": "a second scan of the glass: real",
    "rescan-reduced": "a second scan's finer level, reduced by us",
    "cross-scanner": "a second scanner's picture at HR's own resolution",
    "stored-level": "a lower level of the same file",
    "reduced": "made from the finer level",
    "simulated": "simulated from HR",
}
SCAN_WORDS = {
    "rotation_deg": "turned, degrees",
    "mirrored": "mirrored",
    "stretch": "stretch",
    "nodes_used": "nodes",
    "residual_rms_px": "residual, px rms",
    "seams": "seams",
}
CHECK_WORDS = {
    "agree": "confirmed",
    "differ": "contradicted (OpenSlide was believed)",
    "unchecked": "not confirmed",
}
GALLERY_PAIRS = 12
MAX_SLIDES = 1000
MAP_SIDE_PX = 360
THUMBNAIL_BYTES = 6e6
JPEG_BYTES_PER_PX = 0.5
"""Of stained tissue at the page's quality."""
MAX_BOXES = 120_000
"""Patches that all drawings of a page show together."""


def overview(facts: StoreFacts) -> Markup:
    """The first numbers, and the sentences that a user must not miss."""
    s = facts.summary
    stamp = dict(facts.store.attributes).get("leaky")
    flagged = lr_lines(facts.store)
    leak = {"test_pairs": 0, **(stamp if isinstance(stamp, dict) else {})}
    return template("store.html").overview(
        numbers={
            "pairs": s.kept,
            "slides": s.slides,
            "patients": s.patients,
            "slides not in it": s.planned - s.slides,
            "refused pairs": s.stored - s.kept,
            f"on disk, codec {facts.store.attributes['codec']}": _size(facts.store.paths.root),
        },
        arrays=[_array_row(facts, array) for array in s.arrays],
        splits=_ordered(facts),
        s=s,
        leak=leak if is_declared_leaky(facts.store) else None,
        crossing=_crossing_patients(facts),
        mixed=[array.name for array in s.arrays[1:] if len(array.origins) > 1],
        differing=sum(
            any(item.get("warning") for item in _used_evidence(attributes))
            for attributes in facts.attributes.values()
        ),
        flagged=flagged,
        warnings=[t for t in facts.warnings if not t.startswith("LEAKY") and t not in flagged],
    )


def _array_row(facts: StoreFacts, array: Any) -> list[object]:
    um = "–"
    if array.um_per_px:
        low, high = array.um_per_px
        um = f"{low:.4g}" if high - low < 1e-3 * high else f"{low:.4g} to {high:.4g}"
    finest = array.name == facts.store.arrays[0]
    kinds = [name.split(":", 1)[0] for name in array.origins]
    meaning = "the target" if finest else "; ".join(ORIGIN_WORDS[kind] for kind in kinds)
    native = f"{array.native} of {facts.summary.slides} slides"
    sizes = " / ".join(str(px) for px in array.sizes_px)
    return [array.name, sizes, um, ", ".join(array.origins), meaning, native]


def _crossing_patients(facts: StoreFacts) -> list[str]:
    seen: dict[str, set[str]] = {}
    for split, rows in facts.splits.items():
        for slide in _slides_of(facts, rows):
            seen.setdefault(str(facts.attributes[slide]["patient"]), set()).add(split)
    return sorted(patient for patient, splits in seen.items() if len(splits) > 1)


def _slides_of(facts: StoreFacts, pairs: Any) -> list[str]:
    """Committed slides that a split draws on."""
    ids = facts.store.attributes["slides"]
    places = [index for index in np.unique(pairs[:, 0]).tolist() if 0 <= index < len(ids)]
    return [ids[index] for index in places if ids[index] in facts.attributes]


def pairs(facts: StoreFacts) -> Markup:
    """A gallery of pairs that change between LR and HR."""
    items = None
    if len(facts.store.arrays) > 1:
        items = [read_pair(facts, position) for position in choose_gallery(facts, GALLERY_PAIRS)]
    return template("store.html").pairs(items)


def funnel_chart(facts: StoreFacts) -> Chart | None:
    """From candidates to kept over all slides; None where the build recorded no funnel."""
    total = facts.summary.funnel
    steps = [(FUNNEL_WORDS.get(step, step), total[step]) for step in funnel_steps(total)]
    return funnel_of(steps, title="From candidates to kept pairs", width_px=900) if steps else None


def funnel(facts: StoreFacts) -> Markup:
    """The same, and for each slide."""
    steps = funnel_steps(facts.summary.funnel)
    return template("store.html").funnel(
        drawn=funnel_chart(facts),
        head=["slide", *(FUNNEL_WORDS.get(step, step) for step in steps)],
        rows=[
            [slide_id, *((attributes.get("funnel") or {}).get(step) for step in steps)]
            for slide_id, attributes in facts.attributes.items()
        ],
        s=facts.summary,
    )


def slides(facts: StoreFacts) -> Markup:
    """Every slide: what the build saw of it, or its mask, with the patches."""
    count = min(len(facts.store.slides), MAX_SLIDES)
    limit = min(600, MAX_BOXES // count)
    items, mapped, as_built = [], 0, False
    for slide_id, attributes in list(facts.attributes.items())[:MAX_SLIDES]:
        rows = facts.rows_per_slide[slide_id]
        kept = int(facts.kept[rows].sum())
        words = f"{slide_id}: {kept:,} of {len(rows):,} pairs kept, {attributes.get('split')}"
        if str(attributes["patient"]) != slide_id:
            words += f", patient {attributes['patient']}"
        path = facts.folder / "slides" / f"{slide_id}.png"
        picture: Path | UInt8Array | None = path
        side: int | None = thumbnail_side_px(count)
        if path.is_file():
            drawn = reframed(facts, slide_id, path)
            as_built = as_built or drawn is None
            picture = path if drawn is None else drawn
        else:
            picture, side = slide_map(facts, slide_id, limit), None
            mapped += 1
        if picture is not None:
            alt = f"Slide {slide_id} with its tissue and {len(rows)} patches, {kept} of them kept"
            items.append({"picture": picture, "alt": alt, "words": words, "side": side})
    return template("store.html").slides(
        items=items,
        mapped=mapped,
        as_built=as_built and facts.store.attributes.get("keep"),
        limit=limit,
        limited=any(len(rows) > limit for rows in facts.rows_per_slide.values()),
        total=len(facts.store.slides),
    )


def thumbnail_side_px(slides: int) -> int:
    """Longer side of a slide's picture, so that all of them fit into `THUMBNAIL_BYTES`."""
    return int(np.clip((THUMBNAIL_BYTES / (JPEG_BYTES_PER_PX * slides)) ** 0.5, 96, 720))


def slide_map(facts: StoreFacts, slide_id: str, limit: int) -> UInt8Array | None:
    """A slide's mask with its patches, from the store alone; None where they do not fit."""
    scene = facts.scene(slide_id, limit)
    if scene is None:
        return None
    tinted = tissue_map(scene.tissue, MAP_SIDE_PX)
    kept = facts.kept[scene.rows]
    return patch_overlay(tinted, scene.extent_px[0], scene.origins, kept, scene.field_px)


def reframed(facts: StoreFacts, slide_id: str, picture: Path) -> UInt8Array | None:
    """After `wsisr keep`, the build's picture of a slide with the frames that hold now.

    The file is rewritten too, so that who opens it sees what the page shows. None where nothing
    was decided anew, or the store does not say how wide the picture is.
    """
    levels = facts.attributes[slide_id].get("levels") or [{}]
    if not facts.store.attributes.get("keep") or "width_px" not in levels[0]:
        return None
    rows = facts.rows_per_slide[slide_id]
    view = facts.store.slides[slide_id]
    hr = view.spec(view.arrays[0])
    with Image.open(picture) as opened:
        before = np.asarray(opened.convert("RGB"))
    origins = np.stack([facts.table["x"][rows], facts.table["y"][rows]], axis=1)
    drawn = patch_overlay(
        before, levels[0]["width_px"], origins, facts.kept[rows], hr.factor * hr.size_px
    )
    if not np.array_equal(before, drawn):
        # A report folder that may not be written to still gets its page elsewhere.
        with suppress(OSError):
            replace_file(picture, png_bytes(drawn))
    return drawn


def splits(facts: StoreFacts) -> Markup:
    """Who is in which split."""
    place = {
        (int(slide), int(row)): index
        for index, (slide, row) in enumerate(zip(facts.slide_of, facts.table["row"], strict=True))
    }
    labels, counts = facts.labels, dict[str, Counter[str]]()
    rows, unknown = [], 0
    total = sum(len(pairs) for pairs in facts.splits.values()) or 1
    for name, members in _ordered(facts).items():
        slides = _slides_of(facts, members)
        patients = {str(facts.attributes[slide]["patient"]) for slide in slides}
        sites = Counter(str(facts.attributes[slide].get("site") or "") for slide in slides)
        found = [place.get((int(a), int(b))) for a, b in members.tolist()]
        counts[name] = Counter(labels[at] for at in found if at is not None)
        unknown += found.count(None)
        words = ", ".join(f"{site} {count}" for site, count in sorted(sites.items()) if site)
        share = f"{100 * len(members) / total:.1f} %"
        rows.append([name, len(members), share, len(slides), len(patients), words or "–"])
    names = sorted({label for counted in counts.values() for label in counted if label})
    series = [
        ChartSeries(name, list(counts), [counted[name] for counted in counts.values()], kind="bars")
        for name in names
    ]
    drawn = chart(series, title="Labels by split", x_label="", y_label="pairs", size_px=(460, 280))
    return template("store.html").splits(
        rows=rows,
        unknown=unknown,
        names=names,
        counts=[[split, *(counted[name] for name in names)] for split, counted in counts.items()],
        drawn=drawn,
    )


def refused(facts: StoreFacts) -> Markup:
    """Slides and pairs that are not in the store, and why."""
    s, store = facts.summary, facts.store
    named = {row.get("slide") for row in facts.failures}
    example = "abs(residual_x)<0.5" if "residual_x" in facts.table else "tissue>0.9"
    if "spread" in facts.table and "ncc_band" in facts.table:
        example = "spread<0.25 and ncc_band>0.85"
    return template("store.html").refused(
        failures=[
            [row.get(key) for key in ("slide", "stage", "kind", "error")] for row in facts.failures
        ],
        missing=[
            name
            for name in store.attributes["slides"]
            if name not in store.slides and name not in named
        ],
        s=s,
        reasons=list(s.reasons.items()),
        rest=s.stored - s.kept - sum(s.reasons.values()),
        example=example,
        store=store.path.name,
    )


def levels(facts: StoreFacts) -> Markup:
    """Readers, codecs and the evidence about stored levels."""
    rows = []
    for slide_id, attributes in facts.attributes.items():
        evidence = {item["level"]: item for item in attributes.get("evidence") or []}
        for level in attributes.get("levels") or []:
            if level.get("used"):
                pressed = level.get("compression") or {}
                item = evidence.get(level["index"], {})
                quality = pressed.get("quality")
                rows.append(
                    [
                        slide_id,
                        level["index"],
                        level.get("factor"),
                        pressed.get("codec"),
                        None if quality is None else f"Q{quality}",
                        pressed.get("subsampling"),
                        item.get("psnr_db"),
                        item.get("kernel") or None,
                        None if not item else "differs" if item.get("warning") else "as reduced",
                    ]
                )
    kept = {True: "kept", False: "replaced by a reduction"}
    return template("store.html").levels(
        flagged=[
            [slide_id, name, kept[facts.store.slides[slide_id].spec(name).native], why]
            for slide_id, attributes in facts.attributes.items()
            for name, why in (attributes.get("lr_flags") or {}).items()
        ],
        scans=[
            [slide_id, scan.get("source"), scan.get("vendor")]
            + [(scan.get("registration") or {}).get(key) for key in SCAN_WORDS]
            for slide_id, scan in ((i, a.get("hr_scan")) for i, a in facts.attributes.items())
            if scan is not None
        ],
        scan_head=list(SCAN_WORDS.values()),
        rows=rows,
        notes=[
            [slide_id, text]
            for slide_id, attributes in facts.attributes.items()
            for text in [
                *(attributes.get("quirks") or []),
                *(attributes.get("notes") or []),
                *_not_tiled(attributes),
            ]
        ],
    )


def provenance(facts: StoreFacts) -> Markup:
    """What is needed to say which data this is, and to make it again."""
    attributes, manifest, every = facts.store.attributes, facts.manifest, facts.attributes.values()
    paper = manifest.get("paper") or {}
    cited = [paper.get("authors"), paper.get("title"), paper.get("year"), paper.get("doi")]
    checks = [a["reader_check"]["status"] for a in every if a.get("reader_check")]
    resolution = [a.get("mpp") or {} for a in every]
    version = f"version {manifest['version']}" if "version" in manifest else ""
    return template("store.html").provenance(
        values={
            "manifest": f"{manifest.get('name', 'unnamed')} {version}".strip(),
            "what it makes": manifest.get("description"),
            "paper": ". ".join(str(word) for word in cited if word) or None,
            "manifest sha256": attributes["manifest_sha256"],
            "content digest": facts.store.content_digest(),
            "format": f"wsisr-pairs, version {attributes['format_version']}",
            "codec": attributes["codec"] + _tiled(attributes["codec"], every),
            "seed": manifest.get("seed"),
            "readers": _counted(str(a.get("backend") or "unknown") for a in every),
            "by a second reader": _counted(CHECK_WORDS.get(check, check) for check in checks),
            "vendors": _counted(str(a.get("vendor") or "unknown") for a in every),
            "resolution from": _counted(
                f"{mpp.get('source', 'none')} ({mpp.get('quality', '')})" for mpp in resolution
            ),
            "patients known by": _counted(facts.summary.patient_sources),
            "overridden by a table": _counted(overrides_of(facts.store)),
            "kept by": facts.summary.keep_rule or "the verdict of registration",
        },
        readings=manifest.get("readings") or [],
        packages=sorted(attributes["created_with"].items()),
    )


def _tiled(codec: str, slides: Iterable[Mapping[str, Any]]) -> str:
    """Of how many slides the own tiles are kept, where the codec is to keep them."""
    kept = [bool(slide.get("tiled")) for slide in slides]
    return f" (own tiles of {sum(kept)} of {len(kept)} slides)" if codec == SLIDE else ""


def _not_tiled(slide: Mapping[str, Any]) -> list[str]:
    """Why a slide's own tiles are not kept, where that was asked for."""
    reason = slide.get("not_tiled")
    return [f"stored as codec small, not as its own tiles: {reason}"] if reason else []


def _counted(words: Any) -> str | None:
    """How often each word occurs; `words` may be counts already."""
    return ", ".join(f"{word} {count}" for word, count in Counter(words).most_common()) or None


def _used_evidence(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    used = {level["index"] for level in attributes.get("levels") or [] if level.get("used")}
    return [item for item in attributes.get("evidence") or [] if item["level"] in used]


def _ordered(facts: StoreFacts) -> dict[str, Any]:
    """Splits in the order in which they are used."""
    order = {"train": 0, "val": 1, "test": 2}
    names = sorted(facts.splits, key=lambda name: (order.get(name, 3), name))
    return {name: facts.splits[name] for name in names}


def _size(place: Place) -> str:
    total = float(sum(place.sizes().values()))
    for unit in ("B", "KB", "MB", "GB"):
        if total < 1000:
            return f"{total:.3g} {unit}"
        total /= 1000
    return f"{total:,.3g} TB"
