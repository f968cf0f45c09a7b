"""The page of a pair store: what it holds, how it came about, and whether it can be trusted."""

from pathlib import Path

from wsisr.files import staged_files
from wsisr.reporting import store_alignment, store_sections
from wsisr.reporting.page import Page
from wsisr.reporting.store_facts import read_facts
from wsisr.store.layout import StorePaths
from wsisr.store.object_files import url_of
from wsisr.store.verify_splits import is_declared_leaky
from wsisr.words import counted


def write_store_report(path: Path, output: Path | None = None) -> Path:
    """Write the page of a store, and its figures as PNG, SVG and PDF in ``figures/`` beside it.

    Needs nothing but the store. Pictures that the build left in its report folder are taken in.
    The page is `output`, by default ``pairs.report/report.html``; its path is returned.

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
    badges = [(" / ".join(reversed(facts.store.arrays)), "plain")]
    for one in s.arrays[1:]:
        badges.append((f"LR origin of {one.name}: {' + '.join(one.origins)}", "plain"))
    if is_declared_leaky(facts.store):
        badges.insert(0, ("LEAKY: patches are split at random", "bad"))
    if not facts.splits:
        badges.insert(0, ("build not finished", "warn"))
    page = Page(
        path.name,
        f"{counted(s.kept, 'pair')} from {counted(s.slides, 'slide')} of "
        f"{counted(s.patients, 'patient')}, by the manifest "
        f"{s.manifest or '(unnamed)'}",
        kind="Pair store",
        badges=badges,
        footer=f"Written by wsisr report. Content digest {facts.store.content_digest()}.",
    )
    aligned = store_alignment.Alignment(facts)
    page.section("overview", "Overview", store_sections.overview(facts))
    page.section("pairs", "Pairs", store_sections.pairs(facts))
    page.section("alignment", "Alignment", aligned.section())
    page.section("funnel", "Funnel", store_sections.funnel(facts))
    page.section("slides", "Slides", store_sections.slides(facts))
    page.section("splits", "Splits", store_sections.splits(facts))
    page.section("refused", "Refused", store_sections.refused(facts))
    page.section("levels", "Levels", store_sections.levels(facts))
    page.section("provenance", "Provenance", store_sections.provenance(facts))
    with staged_files(target.parent, target.name) as staged:
        aligned.save(staged / "figures", store_sections.funnel_chart(facts))
        page.write(staged / target.name)
    return target
