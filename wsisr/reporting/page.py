"""One self-contained HTML page: style and script inside, light and dark, no request to anywhere.

A page is written as sections made of the pieces of `wsisr.reporting.html`, which are offered here
too. Plain strings are text and are escaped; only `Html` is taken as markup.
"""

from base64 import b64encode
from functools import cache
from hashlib import sha256
from html import escape
from importlib.resources import files
from pathlib import Path

from wsisr.errors import ConfigError
from wsisr.files import staged_files
from wsisr.reporting.drawing import DARK, FONT, LIGHT
from wsisr.reporting.html import (
    Html,
    badge,
    bullets,
    cards,
    code,
    details,
    element,
    facts,
    figure,
    flicker,
    grid,
    heading,
    join,
    markup,
    note,
    paragraph,
    table,
)

__all__ = [
    "Html",
    "Page",
    "badge",
    "bullets",
    "cards",
    "code",
    "details",
    "element",
    "facts",
    "figure",
    "flicker",
    "grid",
    "heading",
    "join",
    "markup",
    "note",
    "paragraph",
    "table",
]


INDEX_NAME = "index.html"
"""The page that an evaluation or a study has in its own folder."""


class Page:
    """A page being written.

    Parameters
    ----------
    title, subtitle : str
        Text; the subtitle may be `Html`.
    kind : str
        A word above the title, e.g. ``"Pair store"``.
    badges : Html
        What must be seen first, e.g. ``badge("LEAKY", "bad")``.
    footer : str or Html
    """

    def __init__(
        self,
        title: str,
        subtitle: str = "",
        *,
        kind: str = "",
        badges: str = "",
        footer: str = "",
    ) -> None:
        self.title = title
        self.subtitle = subtitle
        self.kind = kind
        self.badges = badges
        self.footer = footer
        self._sections: list[tuple[str, str, Html]] = []

    def section(self, id: str, title: str, *content: object) -> "Page":
        """Add a section; plain strings become paragraphs.

        Parameters
        ----------
        id : str
            Letters, digits and hyphens; unique on the page.
        title : str
            Heading, and the word in the navigation.
        *content : Html or str

        Raises
        ------
        ConfigError
            If the id is taken or not usable in a link.
        """
        if not id.replace("-", "").isalnum() or not id.isascii():
            raise ConfigError(f"{id!r} is no section id: use letters, digits and hyphens.")
        if any(known == id for known, _, _ in self._sections):
            raise ConfigError(f"The page has a section {id!r} already.")
        parts = [part if isinstance(part, Html) else paragraph(part) for part in content if part]
        self._sections.append((id, title, join(parts)))
        return self

    def html(self) -> str:
        """The whole page."""
        style, script = _style(), _asset("page.js")
        digest = b64encode(sha256(script.encode()).digest()).decode("ascii")
        policy = (
            "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
            f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
        )
        links = "".join(
            f'<li><a href="#{name}">{escape(title)}</a></li>' for name, title, _ in self._sections
        )
        body = "".join(
            f'<section id="{name}" aria-labelledby="h-{name}">'
            f'<h2 id="h-{name}">{escape(title)}</h2>{content}</section>\n'
            for name, title, content in self._sections
        )
        over = f'<p class="over">{escape(self.kind)}</p>' if self.kind else ""
        under = f'<p class="sub">{markup(self.subtitle)}</p>' if self.subtitle else ""
        badges = f"<div>{markup(self.badges)}</div>" if self.badges else ""
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light dark">\n'
            '<meta name="referrer" content="no-referrer">\n'
            f'<title>{escape(self.title)}</title>\n<link rel="icon" href="data:,">\n'
            f"<style>{style}</style>\n</head>\n<body>\n"
            '<a class="skip" href="#content">Skip to the content</a>\n'
            f"<header>{over}<h1>{escape(self.title)}</h1>{under}{badges}</header>\n"
            f'<nav aria-label="Sections"><div><ul>{links}</ul>'
            '<button id="theme" type="button" title="Light, dark, or as the system has it">Theme'
            "</button></div></nav>\n"
            f'<main id="content">\n{body}</main>\n'
            f"<footer>{paragraph(self.footer) if self.footer else ''}</footer>\n"
            f"<script>{script}</script>\n</body>\n</html>\n"
        )

    def write(self, path: Path | str) -> Path:
        """Write the page; the folder is made, and a page that is there is replaced whole.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        target = Path(path)
        with staged_files(target.parent, target.name) as staged:
            (staged / target.name).write_text(self.html(), encoding="utf-8")
        return target


@cache
def _asset(name: str) -> str:
    return files("wsisr.reporting").joinpath(name).read_text(encoding="utf-8")


@cache
def _style() -> str:
    light = ";".join(f"--{name}:{value}" for name, value in LIGHT.items())
    dark = ";".join(f"--{name}:{value}" for name, value in DARK.items())
    light += ";--page:#f4f6f9;--soft:#eef1f5;color-scheme:light"
    dark += ";--page:#0d1117;--soft:#1f2630;color-scheme:dark"
    return (
        f":root{{--font:{FONT};{light}}}\n"
        "@media screen and (prefers-color-scheme:dark)"
        f"{{:root:not([data-theme=light]){{{dark}}}}}\n"
        f"@media screen{{:root[data-theme=dark]{{{dark}}}}}\n{_asset('page.css')}"
    )
