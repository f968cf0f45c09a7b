"""Pieces of a page. Text is escaped unless it is `Html`; only this package makes `Html`."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wsisr.errors import ConfigError
from wsisr.reporting.charts import NARROW_PX, Chart
from wsisr.reporting.drawing import Drawing
from wsisr.reporting.pictures import Picture, encode

ImageLike = bytes | Path | NDArray[Any]
Tone = Literal["plain", "good", "warn", "bad"]
Cell = object


class Html(str):
    """Markup that is already safe; everything else is text and gets escaped."""

    __slots__ = ()

    def __add__(self, other: str) -> "Html":
        return Html(str(self) + markup(other))


def markup(value: object) -> Html:
    """`Html` as it is, everything else escaped."""
    return value if isinstance(value, Html) else Html(escape(str(value)))


def join(parts: Iterable[object], between: str = "") -> Html:
    """Pieces one after another; those that are text are escaped."""
    return Html(str(markup(between)).join(str(markup(part)) for part in parts))


def element(tag: str, *content: object, **attributes: str | None) -> Html:
    """One element; ``class_="x"`` gives ``class="x"``, None leaves an attribute out."""
    words = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Html(f"<{tag}{words}>{join(content)}</{tag}>")


def paragraph(*content: object) -> Html:
    """A paragraph."""
    return element("p", *content)


def heading(text: object) -> Html:
    """A heading inside a section."""
    return element("h3", text)


def code(text: object) -> Html:
    """Something to type, or a value to read exactly."""
    return element("code", text)


def bullets(items: Iterable[object]) -> Html:
    """A list."""
    return element("ul", *(element("li", item) for item in items))


def note(*content: object, tone: Tone = "plain", title: str = "") -> Html:
    """A framed remark; `tone` says how serious it is, and `title` says it in words."""
    head = element("strong", title, " ") if title else ""
    return element("div", paragraph(head, *content), class_=f"note {tone}", role="note")


def badge(text: object, tone: Tone = "plain") -> Html:
    """A short word in a frame."""
    return element("span", text, class_=f"badge {tone}")


def cards(facts: Mapping[str, object]) -> Html:
    """The few numbers that a reader wants first: name to value."""
    items = (
        element("div", element("dt", name), element("dd", cell_text(value)), class_="card")
        for name, value in facts.items()
    )
    return element("dl", *items, class_="cards")


def facts(values: Mapping[str, object]) -> Html:
    """Names and values in two columns."""
    rows = (
        join([element("dt", name), element("dd", cell_text(value))])
        for name, value in values.items()
    )
    return element("dl", *rows, class_="facts")


def details(summary: object, *content: object, open_: bool = False) -> Html:
    """Something that opens when asked for; printed open."""
    return element("details", element("summary", summary), *content, open="open" if open_ else None)


def grid(*items: object, width_px: int = 300) -> Html:
    """Items side by side as the page allows, each at least `width_px` wide where it can be."""
    return element("div", *items, class_="grid", style=f"--cell:{width_px}px")


def cell_text(value: object) -> Html:
    """A value as a reader wants it: thousands separated, four digits, a dash for nothing."""
    if isinstance(value, Html):
        return value
    if value is None:
        return Html("–")
    if isinstance(value, bool | np.bool_):
        return Html("yes" if value else "no")
    if isinstance(value, int | np.integer):
        return Html(f"{int(value):,}")
    if isinstance(value, float | np.floating):
        number = float(value)
        if not isfinite(number):
            return Html("∞" if number == float("inf") else "–")
        return Html(f"{number:,.0f}" if abs(number) >= 1e4 else f"{number:.4g}")
    return markup(value)


def table(
    header: Sequence[object],
    rows: Iterable[Sequence[Cell]],
    *,
    numeric: Collection[int] | None = None,
    caption: str = "",
    sortable: bool = False,
) -> Html:
    """A table that scrolls in its own box where the page is narrow.

    Parameters
    ----------
    header : sequence
        One heading per column.
    rows : iterable of sequences
        Text, numbers (formatted here), None for nothing, or `Html`. The first cell of a row is
        its heading.
    numeric : collection of int, optional
        Columns set to the right; by default those that hold only numbers, or text that reads as
        numbers.
    caption : str
    sortable : bool
        Headings become buttons that sort.

    Raises
    ------
    ConfigError
        If a row has another number of cells than the header.
    """
    body = [list(row) for row in rows]
    if any(len(row) != len(header) for row in body):
        raise ConfigError(f"A table of {len(header)} columns has rows of another length.")
    right = (
        set(numeric)
        if numeric is not None
        else {index for index in range(len(header)) if _is_numeric([row[index] for row in body])}
    )
    heads = (
        element(
            "th",
            element("button", title, type="button") if sortable else title,
            scope="col",
            class_="n" if index in right else None,
        )
        for index, title in enumerate(header)
    )
    lines = (
        element("tr", *(_cell(index, value, index in right) for index, value in enumerate(row)))
        for row in body
    )
    inner = element(
        "table",
        element("caption", caption) if caption else "",
        element("thead", element("tr", *heads)),
        element("tbody", *lines),
        class_="sortable" if sortable else None,
    )
    label = caption or f"Table: {', '.join(str(title) for title in header[:4])}"
    return element("div", inner, class_="scroll", tabindex="0", role="region", aria_label=label)


def figure(
    image: ImageLike | Chart | Drawing,
    alt: str,
    caption: object = "",
    *,
    pixelated: bool = False,
    max_side_px: int | None = None,
    narrow: Drawing | None = None,
) -> Html:
    """A picture or a chart with its caption.

    Parameters
    ----------
    image : bytes, Path, array, Chart or Drawing
        PNG, JPEG or WebP; arrays are uint8 (h, w) or (h, w, 3).
    alt : str
        What it shows, for those who cannot see it; must not be empty. Charts bring their own.
    caption : str or Html
    pixelated : bool
        Enlarge by nearest neighbour, so that pixels can be seen.
    max_side_px : int, optional
        Reduce larger pictures.
    narrow : Drawing, optional
        What narrow screens get instead of a drawing; charts lay themselves out anew.
    """
    foot = element("figcaption", caption) if caption else ""
    if isinstance(image, Chart):
        # Two layouts of the same chart: letters stay readable on a telephone.
        return _two_layouts(image.drawing(), image.drawing(NARROW_PX), foot)
    if isinstance(image, Drawing):
        if narrow is not None:
            return _two_layouts(image, narrow, foot)
        return element("figure", Html(image.svg()), foot, class_="chart")
    picture = encode(image, max_side_px=max_side_px)
    return element("figure", image_element(picture, alt, pixelated=pixelated), foot)


def _two_layouts(wide: Drawing, narrow: Drawing, foot: object) -> Html:
    both = [
        element("div", Html(one.svg()), class_=name)
        for name, one in (("wide", wide), ("narrow", narrow))
    ]
    return element("figure", *both, foot, class_="chart")


def flicker(
    images: Mapping[str, ImageLike],
    alt: str,
    caption: object = "",
    *,
    pixelated: Collection[str] = ("LR",),
    max_side_px: int | None = None,
) -> Html:
    """Pictures of one field in one place: click, Space or Enter shows the next, holding peeks.

    Parameters
    ----------
    images : mapping of str to image
        Name (``"LR"``, ``"HR"``) to picture; the first is shown. All are shown at the size of the
        largest. Without scripts, and in print, they stand side by side.
    alt : str
        What the field shows; the name is added to it.
    caption : str or Html
    pixelated : collection of str
        Names of those that are enlarged by nearest neighbour.
    max_side_px : int, optional
    """
    if len(images) < 2:
        raise ConfigError("A flicker needs at least two pictures.")
    panes = [
        element(
            "span",
            image_element(
                encode(image, max_side_px=max_side_px),
                f"{alt}, {name}",
                pixelated=name in pixelated,
            ),
            element("span", name, class_="name"),
            class_="pane on" if index == 0 else "pane",
        )
        for index, (name, image) in enumerate(images.items())
    ]
    button = element(
        "button",
        *panes,
        type="button",
        class_="flicker",
        aria_label=f"{alt}. Shows {next(iter(images))}; press to change to {list(images)[1]}.",
        data_alt=alt,
    )
    return element("figure", button, element("figcaption", caption) if caption else "")


def image_element(picture: Picture, alt: str, *, pixelated: bool = False) -> Html:
    """An embedded picture."""
    if not alt.strip():
        raise ConfigError("A picture needs an alt text: say what it shows.")
    pixels = ' class="pixels"' if pixelated else ""
    return Html(
        f'<img src="{picture.data_url}" alt="{escape(alt)}" width="{picture.width_px}" '
        f'height="{picture.height_px}"'
        f"{pixels}>"
    )


def _cell(index: int, value: Cell, right: bool) -> Html:
    text = cell_text(value)
    if index == 0:
        return element("th", text, scope="row", class_="n" if right else None)
    return element("td", text, class_="n" if right else None)


def _is_numeric(values: Sequence[Cell]) -> bool:
    kinds = [_reads_as_number(value) for value in values if value is not None]
    return bool(kinds) and all(kinds)


def _reads_as_number(value: Cell) -> bool:
    if isinstance(value, bool | np.bool_):
        return False
    if isinstance(value, int | float | np.integer | np.floating):
        return True
    text = str(value).strip().replace(",", "").replace("−", "-").rstrip("%*†‡")
    if text in ("", "–", "-", "∞"):
        return True
    try:
        float(text.split(" ± ")[0].split(" [")[0])
    except ValueError:
        return False
    return True
