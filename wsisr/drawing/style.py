"""The one style: roles of colours in light and in dark, fonts, and what matplotlib is told."""

from typing import Any

LIGHT = {
    "ink": "#1c2430",
    "muted": "#5a6472",
    "grid": "#dde2e8",
    "paper": "#ffffff",
    "tissue": "#e9c9d4",
    "c1": "#0067a8",
    "c2": "#c24e00",
    "c3": "#007d5c",
    "c4": "#a13d86",
    "c5": "#7a6200",
    "c6": "#5548b8",
    "c7": "#b3203f",
    "c8": "#4c5561",
}
"""Colour roles on white: every series has a contrast of at least 4.5 : 1. Blue and vermilion
come first, since they stay apart in every common colour blindness; shapes tell the rest apart."""

DARK = {
    "ink": "#e6eaf0",
    "muted": "#a2adba",
    "grid": "#333c48",
    "paper": "#161b22",
    "tissue": "#5e3a49",
    "c1": "#5db7f2",
    "c2": "#ff9b52",
    "c3": "#3fcea1",
    "c4": "#ec8fcb",
    "c5": "#e0c24c",
    "c6": "#aca2f6",
    "c7": "#ff8093",
    "c8": "#b9c2cd",
}
"""The same roles on a dark page."""

SERIES = tuple(LIGHT[f"c{k}"] for k in range(1, 9))
MARKERS = ("o", "s", "^", "D", "v", "h", "p", "X")
FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"
TEXT_PX = 12.5
TITLE_PX = 15.0

MATPLOTLIB: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": TEXT_PX,
    "text.color": LIGHT["ink"],
    # A name with two dollars is a name.
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "wsisr",
    "pdf.fonttype": 42,
    "path.simplify": False,
    "axes.axisbelow": True,
    "axes.edgecolor": LIGHT["muted"],
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.linewidth": 1.2,
    **{f"axes.spines.{side}": False for side in ("top", "left", "right")},
    "grid.color": LIGHT["grid"],
    "grid.linewidth": 1,
    "lines.markeredgecolor": LIGHT["paper"],
    "lines.markersize": 8.4,
    "xtick.color": LIGHT["muted"],
    "xtick.major.size": 5,
    "xtick.major.width": 1,
    "ytick.major.size": 0,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
}
"""On top of matplotlib's own defaults, whatever a user's matplotlibrc says."""
