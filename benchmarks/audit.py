"""Faults planted into outputs, and how many an audit finds:
``python benchmarks/audit.py IMAGES --mpp 0.25 --model bicubic runs/edsr-x2 ...``.

Every image (a patient each; of TCGA names the patient's part) is reduced by the degradation that
the model was trained on, enlarged again by the model, and given discs of five faults: a nucleus of
the same image pasted where none is, a nucleus removed (inpainted), a texture swapped for that of
another place, a part moved by 2 um, a cast of 8 grey levels (red up, blue down). What is looked at
is the largest misfit in and beside the disc. It is called found above a limit that at most 5 % of
places pass, by the same number at discs of the same size in unplanted outputs of the *other*
patients (`limit_of`), and, in brackets, above the threshold that `wsisr audit` itself takes.
Printed as a table, by size and scale, with the false alarms that came out and their 95 % interval
over patients.
"""

import argparse
import platform
import re
import zlib
from collections import defaultdict
from dataclasses import dataclass
from importlib.metadata import version
from math import ceil, inf, nan
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from wsisr.arrays import Float32Array, Float64Array, UInt8Array
from wsisr.degradation import Degradation, parse_degradation
from wsisr.inference import load
from wsisr.inference.bicubic import to_grey
from wsisr.inference.engine import Engine
from wsisr.inference.images import super_resolve
from wsisr.inference.tiles import plan_tiles
from wsisr.metrics.nuclei import DIAMETERS_UM, Blobs, find_blobs
from wsisr.metrics.statistics import bootstrap_of
from wsisr.upscaling.audit.misfit import (
    cells_of,
    degraded,
    known_part,
    misfit,
    outside,
)

KINDS = ("pasted", "removed", "texture", "shift", "cast")
PER_SIZE = 6
FALSE_ALARMS = 0.05
MOVED_UM = 2.0
CAST = np.array((8, 0, -8))
STRONG = 0.02
"""Response of a blob that is a nucleus and no texture."""
APART_UM = 40.0
"""Between planted places, so that none is seen at another."""


class Field:
    """One image with its output; where faults go is drawn by its name and the kind alone."""

    def __init__(
        self, path: Path, um: float, engine: Engine, scale: float, by: Degradation
    ) -> None:
        hr = np.array(Image.open(path).convert("RGB"))
        self.scale, self.um, self.by = scale, um, by
        self.name = path.stem
        found = re.match(r"TCGA-\w\w-\w{4}", path.stem)
        self.patient = found[0] if found else path.stem
        side = [int(n // scale) for n in hr.shape[:2]]
        hr = hr[: int(side[0] * scale), : int(side[1] * scale)]
        self.lr = degraded(hr, (side[0], side[1]), scale, by)
        plan = plan_tiles(engine.needs, scale)
        self.sr = to_grey(super_resolve(engine, self.lr, scale, plan))
        self.blobs = find_blobs(hr, um)
        self.misfit = self.look(self.sr)
        self.own = outside(cells_of(self.misfit), np.ones(cells_of(self.misfit).shape, bool))

    def look(self, sr: UInt8Array) -> Float32Array:
        return misfit(degraded(sr, self.lr.shape[:2], self.scale, self.by), self.lr)

    def score(self, values: Float32Array, y: float, x: float, across_um: float) -> float:
        """The largest misfit in a disc's square and one LR px around it."""
        reach = across_um / 2 / self.um / self.scale + 1
        top, left = (max(0, int(v / self.scale - reach)) for v in (y, x))
        bottom, right = (int(np.ceil(v / self.scale + reach)) + 1 for v in (y, x))
        return float(values[top:bottom, left:right].max())

    def places(self, kind: str) -> list[tuple[float, float, float]]:
        """y, x (px) and diameter (um) of what is planted, far from one another."""
        draws = np.random.default_rng(zlib.crc32(f"{self.name} {kind}".encode()))
        strong = self.blobs.responses > STRONG
        centres = self.blobs.centres_um
        chosen: list[tuple[float, float, float]] = []
        border = 20.0
        high = np.array(self.sr.shape[:2]) * self.um - border
        for size in DIAMETERS_UM[::-1]:
            of_size = strong & (self.blobs.diameters_um == size)
            pool = draws.permutation(centres[of_size]) if kind == "removed" else None
            taken = tried = 0
            while taken < PER_SIZE and tried < (400 if pool is None else len(pool)):
                place = draws.uniform(border, high) if pool is None else pool[tried]
                tried += 1
                if (place < border).any() or (place > high).any():
                    continue
                if any(np.hypot(y - place[0], x - place[1]) < APART_UM for y, x, _ in chosen):
                    continue
                near = np.hypot(*(centres[strong] - place).T).min(initial=np.inf)
                if kind == "pasted" and near < size / 2 + 4:
                    continue
                chosen.append((float(place[0]), float(place[1]), size))
                taken += 1
        return [(y / self.um, x / self.um, size) for y, x, size in chosen]

    def planted(self, kind: str, places: list[tuple[float, float, float]]) -> UInt8Array:
        draws = np.random.default_rng(zlib.crc32(f"{self.name} {kind} what".encode()))
        made = self.sr.astype(np.float32)
        for y, x, size in places:
            radius = size / 2 / self.um
            half = int(np.ceil(radius * 1.4)) + 3
            top, left = round(y) - half, round(x) - half
            part = made[top : top + 2 * half + 1, left : left + 2 * half + 1]
            rows, columns = np.mgrid[: part.shape[0], : part.shape[1]] - half
            grown = radius * (1.25 if kind in ("pasted", "removed") else 1.0)
            disc = np.clip(grown - np.hypot(rows, columns) + 0.5, 0, 1)[..., None]
            part[:] = part * (1 - disc) + disc * self._what(kind, part, size, (y, x), draws)
        return to_grey(made)

    def _what(
        self,
        kind: str,
        part: Float32Array,
        size: float,
        at: tuple[float, float],
        draws: np.random.Generator,
    ) -> Float64Array | Float32Array:
        if kind == "cast":
            return part + CAST
        half = part.shape[0] // 2
        if kind == "removed":
            rows, columns = np.mgrid[: part.shape[0], : part.shape[1]] - half
            hole = (np.hypot(rows, columns) <= size / 2 / self.um * 1.3).astype(np.uint8)
            return cv2.inpaint(to_grey(part), hole, 3, cv2.INPAINT_TELEA).astype(np.float32)
        if kind == "pasted":
            return self._nucleus(size, half, draws)
        if kind == "shift":
            where = np.array(at) + MOVED_UM / self.um * np.array((np.sin(1.0), np.cos(1.0)))
        else:
            low = np.full(2, half + 2)
            where = draws.uniform(low, np.array(self.sr.shape[:2]) - low)
        size_px = (part.shape[1], part.shape[0])
        return cv2.getRectSubPix(self.sr, size_px, (float(where[1]), float(where[0]))).astype(
            np.float32
        )

    def _nucleus(self, size: float, half: int, draws: np.random.Generator) -> Float32Array:
        """A strong nucleus of the same output, at the size that is asked for."""
        blobs: Blobs = self.blobs
        inside = (blobs.centres_um > 15).all(1) & (
            blobs.centres_um < np.array(self.sr.shape[:2]) * self.um - 15
        ).all(1)
        pool = np.flatnonzero((blobs.responses > STRONG) & inside)
        take = pool[draws.integers(len(pool))]
        y, x = blobs.centres_um[take] / self.um
        grow = size / blobs.diameters_um[take]
        side = 2 * half + 1
        matrix = np.array([[grow, 0, half - grow * x], [0, grow, half - grow * y]])
        return cv2.warpAffine(
            self.sr, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        ).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Place:
    """A planted disc: the largest misfit there, the same before, and the command's threshold."""

    kind: str
    size_um: float
    patient: str
    planted: float
    calm: float
    own: float


def plant(fields: list[Field]) -> list[Place]:
    """Every fault in every field."""
    found = []
    for kind in KINDS:
        for field in fields:
            places = field.places(kind)
            values = field.look(field.planted(kind, places))
            found += [
                Place(kind=kind, size_um=size, patient=field.patient, own=field.own,
                      planted=field.score(values, y, x, size),
                      calm=field.score(field.misfit, y, x, size))
                for y, x, size in places
            ]  # fmt: skip
    return found


def limit_of(calm: list[float]) -> float:
    """What the next place passes in at most 5 % of cases, if it is like these (exchangeable).

    The k-th smallest of n, k = ceil(0.95 (n + 1)), as in conformal prediction: the 95th percentile
    of n values itself is passed by the next in 5 % and almost 1 / n. Infinite (no limit) below 19.
    """
    rank = ceil((1 - FALSE_ALARMS) * (len(calm) + 1) - 1e-9)
    return sorted(calm)[rank - 1] if rank <= len(calm) else inf


def judge(places: list[Place]) -> list[tuple[Place, float, float, bool]]:
    """Each with: found, false alarm (both NaN without a limit), found by the command's own."""
    calm = defaultdict(list)
    for p in places:
        calm[p.kind, p.size_um].append(p)
    judged = []
    for p in places:
        others = [o.calm for o in calm[p.kind, p.size_um] if o.patient != p.patient]
        limit = limit_of(others)
        by_limit = (p.planted > limit, p.calm > limit) if limit < inf else (nan, nan)
        judged.append((p, *by_limit, p.planted > p.own))
    return judged


def lines(model: str, scale: float, places: list[Place]) -> list[str]:
    """Rows of the table."""
    judged = judge(places)
    made = []
    for kind in KINDS:
        of_kind = [row for row in judged if row[0].kind == kind]
        cells = []
        for size in DIAMETERS_UM:
            rows = np.array([row[1:] for row in of_kind if row[0].size_um == size], float)
            if not len(rows):
                cells.append("-")
                continue
            known = not np.isnan(rows[:, 0]).any()
            found = f"{rows[:, 0].mean():.0%}" if known else "too few"
            cells.append(f"{found} ({rows[:, 2].mean():.0%}) of {len(rows)}")
        of_kind = [row for row in of_kind if not np.isnan(row[2])]
        alarms = np.array([row[2] for row in of_kind], float)
        low, high, _ = bootstrap_of(
            lambda at, alarms=alarms: float(alarms[at].mean()), [row[0].patient for row in of_kind]
        )
        made.append(
            f"| {model} | x{scale:g} | {kind} | {' | '.join(cells)} | {alarms.mean():.1%} "
            f"({low:.1%} to {high:.1%}) |"
        )
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("--mpp", type=float, required=True, help="um per px of the images.")
    parser.add_argument("--model", nargs="+", default=["bicubic"], help="Runs, or bicubic.")
    parser.add_argument("--scale", type=float, nargs="+", default=[2.0, 4.0])
    parser.add_argument("--degradation", default="", help="Default: what the model was trained on.")
    a = parser.parse_args()
    files = sorted(p for p in a.images.rglob("*") if p.suffix.lower() in (".tif", ".png", ".bmp"))
    print(f"{platform.machine()}, ", ", ".join(f"{n} {version(n)}" for n in ("numpy", "torch")))
    sizes = " | ".join(f"{size:g} um" for size in DIAMETERS_UM)
    print(f"\n| model | scale | fault | {sizes} | false alarms |")
    print("|---|---|---|" + "---|" * (len(DIAMETERS_UM) + 1))
    for name in a.model:
        engine = load(name, device="cpu")
        own = engine.trained.scale
        for scale in [float(own)] if own else a.scale:
            text = a.degradation or engine.trained.degradation or "bicubic"
            by = known_part(parse_degradation(text))
            if by is None:
                raise SystemExit(f"{text} is drawn anew for each image: give --degradation.")
            fields = [Field(path, a.mpp, engine, scale, by) for path in files]
            print(*lines(Path(name).name, scale, plant(fields)), sep="\n", flush=True)


if __name__ == "__main__":
    main()
