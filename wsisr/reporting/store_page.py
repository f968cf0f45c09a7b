"""The page of a pair store: what it holds, how it came about, and whether it can be trusted."""

from pathlib import Path

from wsisr.files import staged_files
from wsisr.reporting import store_alignment, store_provenance
from wsisr.reporting import store_pictures as pictures
from wsisr.reporting import store_sections as sections
from wsisr.reporting.page import Page
from wsisr.reporting.store_drawings import funnel_drawing
from wsisr.reporting.store_facts import funnel_steps, read_facts
from wsisr.store.layout import StorePaths
from wsisr.store.object_files import url_of


def write_store_report(path: Path, output: Path | None = None) -> Path:
    """Write the page of a store, and its figures as PNG in ``figures/`` beside the page.

    Needs nothing but the store. Pictures that the build left in its report folder are taken in.

    Parameters
    ----------
    path : Path
        ``pairs.zarr``.
    output : Path, optional
        By default ``pairs.report/report.html``.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    StoreError
        If there is no store, or no slide in it.
    ConfigError
        If the page cannot be written.
    """
    # Beside a store of this machine; of one elsewhere, here.
    folder = StorePaths(path if url_of(path) is None else Path(path.name)).report
    target = folder / "report.html" if output is None else output
    facts = read_facts(path, folder)
    s = facts.summary
    page = Page(
        path.name,
        f"{s.kept:,} pairs from {s.slides:,} slides of {s.patients:,} patients, by the manifest "
        f"{s.manifest or '(unnamed)'}",
        kind="Pair store",
        badges=sections.store_badges(facts),
        footer=f"Written by wsisr report. Content digest {facts.store.content_digest()}.",
    )
    page.section("overview", "Overview", sections.overview(facts))
    page.section("pairs", "Pairs", pictures.pairs(facts))
    page.section("alignment", "Alignment", store_alignment.alignment(facts))
    page.section("funnel", "Funnel", sections.funnel(facts))
    page.section("slides", "Slides", pictures.slides(facts))
    page.section("splits", "Splits", sections.splits(facts))
    page.section("refused", "Refused", sections.refused(facts))
    page.section("levels", "Levels", store_provenance.levels(facts))
    page.section("provenance", "Provenance", store_provenance.provenance(facts))
    with staged_files(target.parent, target.name) as staged:
        figures = staged / "figures"
        store_alignment.save_figures(facts, figures)
        if s.funnel:
            steps = [(sections.STEP_WORDS.get(x, x), s.funnel[x]) for x in funnel_steps(s.funnel)]
            funnel_drawing(steps, title="From candidates to kept").save_png(figures / "funnel.png")
        page.write(staged / target.name)
    return target
