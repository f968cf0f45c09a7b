"""What an export says of itself: a data card with the Hub's front matter, and a citation file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from wsisr.store.exporting.png_folders import HUB_SPLITS
from wsisr.store.reader import PairStore
from wsisr.tables import markdown_table

_SIZES = {
    10**3: "n<1K",
    10**4: "1K<n<10K",
    10**5: "10K<n<100K",
    10**6: "100K<n<1M",
    10**7: "1M<n<10M",
    10**8: "10M<n<100M",
}
"""What the Hub calls data sets of fewer rows than so many."""


def write_card(store: PairStore, counts: Mapping[str, int], folder: Path, *, hub: bool) -> None:
    """``README.md``; with `hub`, splits and files as `datasets.load_dataset` wants them."""
    total = sum(counts.values())
    size = next((word for limit, word in _SIZES.items() if total < limit), "100M<n<1B")
    manifest: Any = store.attributes["manifest"]
    front: dict[str, Any] = {
        "license": "other",
        "pretty_name": f"Super-resolution pairs ({manifest.get('name', 'wsisr')})",
        "task_categories": ["image-to-image"],
        "tags": ["super-resolution", "digital-pathology", "whole-slide-imaging"],
        "size_categories": [size],
    }
    if hub:
        files = [
            {"split": HUB_SPLITS.get(name, name), "path": f"{HUB_SPLITS.get(name, name)}/**"}
            for name in sorted(counts)
            if counts[name]
        ]
        front["configs"] = [
            {
                "config_name": "default",
                "default": True,
                "drop_labels": True,
                "data_files": files,
            }
        ]
    head = yaml.safe_dump(front, sort_keys=False)
    (folder / "README.md").write_text(f"---\n{head}---\n\n{_body(store, counts)}", encoding="utf-8")


def _body(store: PairStore, counts: Mapping[str, int]) -> str:
    manifest: Any = store.attributes["manifest"]
    lines = [f"# {manifest.get('name', 'Pairs')}", "", str(manifest.get("description", "")), ""]
    rows = []
    seen: set[str] = set()
    divided: set[str] = set()
    for name in sorted(counts):
        views = [
            store.slides[store.attributes["slides"][index]]
            for index in sorted({int(i) for i in store.split(name)[:, 0]})
        ]
        patients = {view.attributes["patient"] for view in views}
        divided |= seen & patients
        seen |= patients
        rows.append((name, *(f"{n:,}" for n in (counts[name], len(views), len(patients)))))
    lines += [*markdown_table(["split", "pairs", "slides", "patients"], rows), ""]
    header = ["array", "px", "um/px", "origin of its pixels", "slides"]
    lines += markdown_table(header, _arrays(store))
    lines += [
        "",
        "Every LR has an origin: `rescan` (a second scan of the glass; only this is a real one), "
        "`rescan-reduced` (a second scan's finer level, reduced by us), `stored-level` (a lower "
        "level of the same file), `reduced` (made from a finer level), `cross-scanner` (the same "
        "resolution by another scanner) or `simulated`. Residuals and certificates of the "
        "registration are columns of the table.",
        "",
        f"Patients: {_patients(store)}. "
        + (
            f"**LEAKY: {len(divided):,} of them stand in more than one split.**"
            if divided
            else "As far as they are known, none stands in two splits."
        ),
        "",
        f"Built with wsisr {store.attributes['created_with'].get('wsisr', '')}, manifest "
        f"SHA-256 `{store.attributes['manifest_sha256']}`, content digest "
        f"`{store.content_digest()}`. Pixels are lossless copies of what was read; HR is as "
        "good as the slides' own compression.",
        "",
        "**Licence**: that of the slides holds; it is not known here, so the front matter says "
        "`other`. Fill it in before you pass this on. How to cite: `CITATION.cff`.",
        "",
    ]
    return "\n".join(lines)


def _arrays(store: PairStore) -> list[tuple[str, int, str, str, str]]:
    found: dict[tuple[str, int, str], list[float]] = {}
    for view in store.slides.values():
        for name in view.arrays:
            spec = view.spec(name)
            key = (name, spec.size_px, spec.origin)
            found.setdefault(key, []).append(spec.um_per_px or float("nan"))
    rows = []
    for (name, size, origin), um in found.items():
        low, high = min(um), max(um)
        words = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
        rows.append((name, size, words, origin, f"{len(um):,}"))
    return rows


def _patients(store: PairStore) -> str:
    sources: dict[str, set[str]] = {}
    for view in store.slides.values():
        attributes: Any = view.attributes
        source = attributes.get("patient_source") or "not recorded"
        sources.setdefault(source, set()).add(attributes["patient"])
    return ", ".join(f"{len(names):,} known by: {source}" for source, names in sources.items())


def write_citation(store: PairStore, folder: Path) -> None:
    """``CITATION.cff`` of the data set's paper and of the program."""
    manifest: Any = store.attributes["manifest"]
    software = {
        "type": "software",
        "title": "wsisr: super-resolution pairs, models and slides from whole-slide images",
        "authors": [{"name": "The wsisr developers"}],
        "version": str(store.attributes["created_with"].get("wsisr", "")),
    }
    references: list[dict[str, Any]] = [software]
    paper = manifest.get("paper")
    if paper:
        authors = [{"name": name.strip()} for name in str(paper.get("authors", "")).split(",")]
        entry = {"type": "article", "title": paper["title"], "authors": authors}
        entry |= {key: paper[key] for key in ("year", "doi") if paper.get(key)}
        references.insert(0, entry)
    document = {
        "cff-version": "1.2.0",
        "message": "Cite the publication of the slides, the paper of the data set, and wsisr.",
        "title": f"Super-resolution pairs ({manifest.get('name', 'wsisr')})",
        "type": "dataset",
        "authors": [{"name": "Fill in who made this data set"}],
        "identifiers": [{"type": "other", "value": store.content_digest()}],
        "references": references,
    }
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    (folder / "CITATION.cff").write_text(text, encoding="utf-8")
