"""One self-contained HTML page: style and script inside, light and dark, no request to anywhere.

What a page says stands in ``templates/``: a template for each page with a macro for each section,
made of the pieces in ``parts.html``. Python gathers the facts and hands them over. Everything is
escaped but `Markup`, which only templates make.
"""

import re
from base64 import b64encode
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from hashlib import sha256
from importlib.resources import files
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup, escape

from wsisr.arrays import AnyArray
from wsisr.drawing.encoding import encode
from wsisr.drawing.style import DARK, FONT, LIGHT
from wsisr.drawing.vector import Chart
from wsisr.errors import ConfigError
from wsisr.files import staged_files

if TYPE_CHECKING:
    from jinja2 import Environment

ImageLike = bytes | Path | AnyArray
NARROW_PX = 380
"""Width of the layout that narrow screens get of a wide chart."""
WIDE_PX = 480
"""Charts of at most this width are laid out once: they can be read on a telephone."""


NUMBER = re.compile(r"[-+]?[\d.]+(e[-+]?\d+)?( ± .*| \[[^\]]*\])?\s*")


class Page:
    """A page being written.

    Parameters
    ----------
    kind : str
        A word above the title, e.g. ``"Pair store"``.
    badges : sequence of (str, str)
        What must be seen first, each with its tone: plain, good, warn or bad.
    """

    def __init__(
        self,
        title: str,
        subtitle: str = "",
        *,
        kind: str = "",
        badges: Sequence[tuple[str, str]] = (),
        footer: str = "",
    ) -> None:
        self._facts = {"title": title, "subtitle": subtitle, "kind": kind, "badges": badges}
        self._facts["footer"] = footer
        self._sections: dict[str, tuple[str, list[object]]] = {}

    def section(self, id: str, title: str, *content: object) -> "Page":
        """Add a section; plain strings become paragraphs.

        Parameters
        ----------
        id : str
            Letters, digits and hyphens; unique on the page.
        title : str
            Heading, and the word in the navigation.
        *content : Markup or str

        Raises
        ------
        ConfigError
            If the id is taken or not usable in a link.
        """
        if not id.replace("-", "").isalnum() or not id.isascii():
            raise ConfigError(f"{id!r} is no section id: use letters, digits and hyphens.")
        if id in self._sections:
            raise ConfigError(f"The page has a section {id!r} already.")
        self._sections[id] = title, [part for part in content if part]
        return self

    def html(self) -> str:
        """The whole page."""
        script = _asset("page.js")
        light = {**LIGHT, "color-scheme": "light", "page": "#f4f6f9", "soft": "#eef1f5"}
        dark = {**DARK, "color-scheme": "dark", "page": "#0d1117", "soft": "#1f2630"}
        assets = {"font": FONT, "style": _asset("page.css"), "script": script}
        facts = self._facts | {name: Markup(text) for name, text in assets.items()}
        digest = b64encode(sha256(script.encode()).digest()).decode("ascii")
        page = _environment().get_template("page.html")
        return page.render(facts, sections=self._sections, light=light, dark=dark, digest=digest)

    def write(self, path: Path | str) -> Path:
        """Write the page and return its path; a page that is there is replaced whole.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        target = Path(path)
        with staged_files(target.parent, target.name) as staged:
            (staged / target.name).write_text(self.html(), encoding="utf-8")
        return target


def template(name: str) -> Any:
    """The macros of a template; each gives `Markup` of the facts that it is called with."""
    return _environment().get_template(name).module


def figure(
    image: ImageLike | Chart,
    alt: str = "",
    caption: object = "",
    *,
    pixelated: bool = False,
    max_side_px: int | None = None,
) -> Markup:
    """A picture or a chart with its caption.

    Parameters
    ----------
    image : bytes, Path, array or Chart
        PNG, JPEG or WebP; arrays are uint8 (h, w), (h, w, 3) or (h, w, 4).
    alt : str
        What it shows, for those who cannot see it; must not be empty. Charts bring their own.
    pixelated : bool
        Enlarge by nearest neighbour, so that pixels can be seen.
    max_side_px : int, optional
        Reduce larger pictures.
    """
    if isinstance(image, Chart):
        # Two layouts of a wide chart: letters stay readable on a telephone.
        narrow = Markup(image.svg(NARROW_PX)) if image.width_px > WIDE_PX else None
        return _piece("chart", Markup(image.svg()), narrow, caption)
    if not alt.strip():
        raise ConfigError("A picture needs an alt text: say what it shows.")
    return _piece("picture", encode(image, max_side_px=max_side_px), alt, caption, pixelated)


def flicker(
    images: Mapping[str, ImageLike],
    alt: str,
    caption: object = "",
    *,
    pixelated: Collection[str] = ("LR",),
    max_side_px: int | None = None,
) -> Markup:
    """Pictures of one field in one place: click, Space or Enter shows the next, holding peeks.

    Parameters
    ----------
    images : mapping of str to image
        Name (``"LR"``, ``"HR"``) to picture; the first is shown. All are shown at the size of the
        largest. Without scripts, and in print, they stand side by side.
    alt : str
        What the field shows; the name is added to it.
    pixelated : collection of str
        Names of those that are enlarged by nearest neighbour.
    """
    if len(images) < 2:
        raise ConfigError("A flicker needs at least two pictures.")
    panes = [
        (name, encode(image, max_side_px=max_side_px), name in pixelated)
        for name, image in images.items()
    ]
    return _piece("flicker", panes, alt, caption)


def table(
    header: Sequence[object],
    rows: Iterable[Sequence[object]],
    *,
    numeric: Collection[int] | None = None,
    caption: str = "",
    sortable: bool = False,
) -> Markup:
    """A table that scrolls in its own box where the page is narrow.

    Parameters
    ----------
    header : sequence
        One heading per column.
    rows : iterable of sequences
        Text, numbers (formatted here), None for nothing, or `Markup`. The first cell of a row is
        its heading.
    numeric : collection of int, optional
        Columns set to the right; by default those that hold only numbers, or text that reads as
        numbers.
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
    if numeric is None:
        numeric = [at for at in range(len(header)) if _all_numbers(row[at] for row in body)]
    right = set(numeric)
    return _piece("table", list(header), body, right, caption, sortable)


def value_text(value: object) -> Markup:
    """A value as a reader wants it: thousands separated, four digits, a dash for nothing."""
    if value is None:
        return Markup("–")
    if isinstance(value, bool | np.bool_):
        return Markup("yes" if value else "no")
    if isinstance(value, int | np.integer):
        return Markup(f"{int(value):,}")
    if isinstance(value, float | np.floating):
        number = float(value)
        if not isfinite(number):
            return Markup("∞" if number == float("inf") else "–")
        return Markup(f"{number:,.0f}" if abs(number) >= 1e4 else f"{number:.4g}")
    return value if isinstance(value, Markup) else escape(str(value))


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(str(files("wsisr.reporting") / "templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["value"] = value_text
    made.globals.update(figure=figure, flicker=flicker, table=table)
    return made


def _piece(name: str, *given: object) -> Markup:
    return Markup(getattr(template("parts.html"), name)(*given))


@cache
def _asset(name: str) -> str:
    return (files("wsisr.reporting") / "templates" / name).read_text(encoding="utf-8")


def _all_numbers(values: Iterable[object]) -> bool:
    kinds = [_reads_as_number(value) for value in values if value is not None]
    return bool(kinds) and all(kinds)


def _reads_as_number(value: object) -> bool:
    if isinstance(value, bool | np.bool_):
        return False
    if isinstance(value, int | float | np.integer | np.floating):
        return True
    text = str(value).strip().replace(",", "").replace("−", "-").rstrip("%*†‡")
    return text in ("", "–", "-", "∞") or bool(NUMBER.fullmatch(text))
