"""Sections of a store's page for the record: readers, codecs and levels; manifest and versions."""

from collections import Counter
from typing import Any

from wsisr.reporting.page import Html, bullets, code, details, heading, join, paragraph, table
from wsisr.reporting.page import facts as fact_list
from wsisr.reporting.store_facts import StoreFacts
from wsisr.store.summarise import overrides_of


def levels(facts: StoreFacts) -> Html:
    """Readers, codecs and the evidence about stored levels."""
    rows = []
    for slide_id, attributes in facts.attributes.items():
        evidence = {item["level"]: item for item in attributes.get("evidence") or []}
        for level in attributes.get("levels") or []:
            if not level.get("used"):
                continue
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
    head = [
        "slide",
        "level",
        "1 / factor",
        "codec",
        "quality",
        "chroma",
        "dB from reduced level 0",
        "nearest reduction",
        "evidence",
    ]
    scans = [
        [slide_id, attributes["hr_scan"].get("source"), attributes["hr_scan"].get("vendor")]
        + [_registration(attributes["hr_scan"], key) for key in _SCAN_KEYS]
        for slide_id, attributes in facts.attributes.items()
        if "hr_scan" in attributes
    ]
    notes = [
        [slide_id, text]
        for slide_id, attributes in facts.attributes.items()
        for text in [*(attributes.get("quirks") or []), *(attributes.get("notes") or [])]
    ]
    flagged = [
        [slide_id, name, _KEPT[facts.store.slides[slide_id].spec(name).native], why]
        for slide_id, attributes in facts.attributes.items()
        for name, why in (attributes.get("lr_flags") or {}).items()
    ]
    parts: list[Html] = []
    if flagged:
        parts.append(
            table(
                ["slide", "LR", "stored level", "evidence"],
                flagged,
                numeric=(),
                caption="LR that the evidence speaks against",
            )
        )
    if scans:
        parts.append(
            table(
                ["LR scan", "HR scan", "vendor", *_SCAN_KEYS.values()],
                scans,
                caption="Two scans of one glass: how they were registered",
            )
        )
    if rows:
        parts += [
            paragraph(
                "HR is only as good as its compression, and a stored level is only as good an LR "
                "as its maker's reduction. The evidence compares every level with level 0 reduced "
                "to its size; below 35 dB, or where pixels were left out, the level differs."
            ),
            table(head, rows, sortable=True, caption="Levels in use"),
        ]
    if notes:
        parts.append(
            details(
                f"{len(notes)} notes on slides",
                table(["slide", "note"], notes, numeric=(), caption="Notes of the build"),
            )
        )
    return join(parts or [paragraph("The build recorded no levels.")])


_KEPT = {True: "kept", False: "replaced by a reduction"}
_SCAN_KEYS = {
    "rotation_deg": "turned, degrees",
    "mirrored": "mirrored",
    "stretch": "stretch",
    "nodes_used": "nodes",
    "residual_rms_px": "residual, px rms",
    "seams": "seams",
}


def _registration(scan: dict[str, Any], key: str) -> object:
    return (scan.get("registration") or {}).get(key)


def provenance(facts: StoreFacts) -> Html:
    """What is needed to say which data this is, and to make it again."""
    attributes, manifest = facts.store.attributes, facts.manifest
    paper = manifest.get("paper") or {}
    cited = [paper.get("authors"), paper.get("title"), paper.get("year"), paper.get("doi")]
    readers = Counter(str(a.get("backend") or "unknown") for a in facts.attributes.values())
    checks = Counter(
        _CHECK_WORDS.get(check["status"], check["status"])
        for check in (a.get("reader_check") for a in facts.attributes.values())
        if check
    )
    vendors = Counter(str(a.get("vendor") or "unknown") for a in facts.attributes.values())
    sources = Counter(
        f"{(a.get('mpp') or {}).get('source', 'none')} ({(a.get('mpp') or {}).get('quality', '')})"
        for a in facts.attributes.values()
    )
    parts = [
        fact_list(
            {
                "manifest": f"{manifest.get('name', 'unnamed')} {_version(manifest)}".strip(),
                "what it makes": manifest.get("description"),
                "paper": ". ".join(str(word) for word in cited if word) or None,
                "manifest sha256": code(attributes["manifest_sha256"]),
                "content digest": code(facts.store.content_digest()),
                "format": f"wsisr-pairs, version {attributes['format_version']}",
                "codec": attributes["codec"],
                "seed": manifest.get("seed"),
                "readers": _counted(readers),
                "by a second reader": _counted(checks) or None,
                "vendors": _counted(vendors),
                "resolution from": _counted(sources),
                "patients known by": _counted(Counter(facts.summary.patient_sources)) or None,
                "overridden by a table": _counted(Counter(overrides_of(facts.store))) or None,
                "kept by": facts.summary.keep_rule or "the verdict of registration",
            }
        )
    ]
    readings = manifest.get("readings") or []
    if readings:
        parts += [heading("Readings of what the paper leaves open"), bullets(readings)]
    made = attributes["created_with"]
    parts.append(
        details(
            "Packages that made it",
            table(["package", "version"], sorted(made.items()), numeric=()),
        )
    )
    return join(parts)


_CHECK_WORDS = {
    "agree": "confirmed",
    "differ": "contradicted (OpenSlide was believed)",
    "unchecked": "not confirmed",
}


def _version(manifest: dict[str, Any]) -> str:
    return f"version {manifest['version']}" if "version" in manifest else ""


def _counted(words: Counter[str]) -> str:
    return ", ".join(f"{word} {count}" for word, count in words.most_common())
