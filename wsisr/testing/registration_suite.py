"""A conformance kit for registration: run any method on pairs with exact truth.

    from wsisr.testing.registration_suite import run_suite, wsisr_registrar
    print(run_suite(wsisr_registrar("subpixel"), "A1", range(12)))

`RegistrationTests` holds the requirements as a test class: derive from it, give it your
`register`, and let pytest collect it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from wsisr.arrays import BoolArray, Float64Array, UInt8Array
from wsisr.registration.orientation import D4
from wsisr.registration.overview import register_overviews
from wsisr.registration.pair import find_orientation, register_pair
from wsisr.testing.pair_scenes import synthetic_tissue
from wsisr.testing.pairs import PairCase, make_pair, scene_px
from wsisr.testing.rendering import FieldOfView, Objective, render, to_uint8


@dataclass(frozen=True, kw_only=True)
class RegistrationAnswer:
    """What a registration says of a pair: `dx`, `dy` as in a certificate, and its verdict."""

    dx: float
    dy: float
    accepted: bool


Registrar = Callable[[UInt8Array, UInt8Array, int], RegistrationAnswer]
"""``(lr, hr_region, scale) -> Answer``."""


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """What a suite asks for, HR px; None = nothing.

    Attributes
    ----------
    median_px, p95_px, max_px : float or None
        Of the error of the patch's centre, all pairs.
    accepted : float or None
        Least share of accepted pairs.
    max_accepted_px : float or None
        Largest error of an accepted pair.
    """

    median_px: float | None = None
    p95_px: float | None = None
    max_px: float | None = None
    accepted: float | None = None
    max_accepted_px: float | None = None
    none_accepted: bool = False


REQUIREMENTS = {
    "A0": Requirement(max_px=0.02, accepted=1.0),
    "A1": Requirement(median_px=0.02, p95_px=0.05, accepted=1.0),
    "B1": Requirement(median_px=0.03, p95_px=0.06, accepted=0.95),
    "B2": Requirement(median_px=0.10, max_px=0.30, accepted=0.95),
    "B3": Requirement(max_accepted_px=0.6),
    "L": Requirement(median_px=0.05, p95_px=0.10, accepted=0.95),
    "W": Requirement(none_accepted=True),
    "N": Requirement(none_accepted=True),
    "P": Requirement(none_accepted=True),
}


@dataclass(frozen=True, kw_only=True)
class SuiteResult:
    """Errors and verdicts of one method on one suite.

    Attributes
    ----------
    errors_px : ndarray, shape (n,)
        Distance of the patch's centre from the truth, HR px.
    accepted : ndarray, shape (n,), bool
    """

    suite: str
    errors_px: Float64Array
    accepted: BoolArray

    def faults(self) -> list[str]:
        """Sentences about what falls short of the suite's requirement; empty if nothing does."""
        need = REQUIREMENTS[self.suite]
        found = []
        for name, limit, value in (
            ("median error", need.median_px, float(np.median(self.errors_px))),
            ("95th percentile", need.p95_px, float(np.percentile(self.errors_px, 95))),
            ("largest error", need.max_px, float(self.errors_px.max())),
        ):
            if limit is not None and not value <= limit:
                found.append(f"{self.suite}: {name} {value:.3f} px, at most {limit} wanted")
        if need.accepted is not None and self.accepted.mean() < need.accepted:
            share = self.accepted.mean()
            found.append(f"{self.suite}: {share:.0%} accepted, {need.accepted:.0%} wanted")
        if need.none_accepted and self.accepted.any():
            found.append(f"{self.suite}: {self.accepted.sum()} accepted of which none is right")
        if need.max_accepted_px is not None and self.accepted.any():
            worst = float(self.errors_px[self.accepted].max())
            if worst > need.max_accepted_px:
                found.append(f"{self.suite}: an accepted pair is off by {worst:.3f} px")
        return found

    def __str__(self) -> str:
        median, high = np.percentile(self.errors_px, [50, 95])
        share, count = self.accepted.mean(), len(self.errors_px)
        worst = self.errors_px.max()
        return (
            f"{self.suite}: median {median:.3f}, p95 {high:.3f}, max {worst:.3f} px, "
            f"{share:.0%} accepted (n = {count})"
        )


def wsisr_registrar(method: str = "subpixel") -> Registrar:
    """`register_pair` as a `Registrar`."""

    def register(lr: UInt8Array, hr_region: UInt8Array, scale: int) -> RegistrationAnswer:
        certificate = register_pair(lr, hr_region, scale, method)
        return RegistrationAnswer(
            dx=certificate.dx, dy=certificate.dy, accepted=certificate.accepted
        )

    return register


def error_px(case: PairCase, answer: RegistrationAnswer) -> float:
    """Distance between the true and the found centre, HR px."""
    return float(np.hypot(answer.dx - case.dx, answer.dy - case.dy))


def run_suite(
    register: Registrar,
    suite: str,
    seeds: Iterable[int] = range(12),
    *,
    scene: Float64Array | None = None,
    lr_px: int = 256,
    scale: int = 4,
) -> SuiteResult:
    """Run a method on the pairs of a suite.

    Parameters
    ----------
    suite : str
        Key of `wsisr.testing.pairs.SUITES`.
    seeds : iterable of int
        One pair each.
    scene, lr_px, scale
        As for `make_pair`.
    """
    errors, verdicts = [], []
    for seed in seeds:
        case = make_pair(suite, seed, scene=scene, lr_px=lr_px, scale=scale)
        answer = register(case.lr, case.hr_region, case.scale)
        errors.append(error_px(case, answer))
        verdicts.append(answer.accepted)
    return SuiteResult(suite=suite, errors_px=np.array(errors), accepted=np.array(verdicts))


def orientations_right(count: int = 8, lr_px: int = 96) -> list[bool]:
    """Suite C for `find_orientation`: whether the operation that was applied is undone."""
    results = []
    for seed in range(count):
        case = make_pair("C", seed, lr_px=lr_px)
        found, _ = find_orientation(case.lr, case.hr_region, case.scale)
        results.append(found == case.orientation.inverse())
    return results


@dataclass(frozen=True, kw_only=True)
class OverviewCase:
    """Two overviews of one glass with the exact map between them (suite G).

    Attributes
    ----------
    moving, fixed : ndarray, uint8 RGB
    matrix : ndarray, shape (2, 3)
        Moving px -> fixed px, pixel edges.
    """

    moving: UInt8Array
    fixed: UInt8Array
    matrix: Float64Array
    mirrored: bool


def make_overviews(seed: int, side_px: int = 900) -> OverviewCase:
    """Overviews at any turn, scale error to 2.5 %, mirrored or not, another scanner's look."""
    rng = np.random.default_rng([seed, 77])
    scene = synthetic_tissue(side_px, side_px, seed + 1000)
    edge = np.minimum(np.arange(side_px), np.arange(side_px)[::-1]) / 24
    window = np.clip(np.minimum(edge[:, None], edge[None, :]), 0, 1)[..., None]
    scene = 240 + window * (scene - 240)
    angle, stretch = rng.uniform(0, 2 * np.pi), 1 + rng.uniform(-0.025, 0.025)
    linear = stretch * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    size = int(side_px * 0.65)
    centre = side_px / 2 + rng.uniform(-10, 10, 2)
    optics = Objective(na=0.75, defocus_um=0.0, sigma_px=rng.uniform(0.3, 0.8))
    at = (float(centre[0]), float(centre[1]))
    seen = render(scene, FieldOfView(linear=linear, centre=at, side_px=size), optics)
    seen = 255 * (np.clip(seen, 0, 255) / 255) ** rng.uniform(0.85, 1.15)
    moving = to_uint8(seen + rng.normal(0, 2, seen.shape))
    matrix = np.column_stack([linear, centre - linear @ [size / 2, size / 2]])
    mirrored = bool(rng.random() < 0.5)
    if mirrored:
        moving = np.ascontiguousarray(moving[:, ::-1])
        flip = np.asarray(D4.FLIP.matrix(size, size))
        linear = matrix[:, :2]
        matrix = np.column_stack([linear @ flip[:, :2], linear @ flip[:, 2] + matrix[:, 2]])
    return OverviewCase(moving=moving, fixed=to_uint8(scene), matrix=matrix, mirrored=mirrored)


def overview_error_px(case: OverviewCase) -> tuple[float, bool]:
    """Root mean square error of `register_overviews` over the moving image, overview px, and
    whether the mirroring was recognised."""
    found = register_overviews(case.moving, case.fixed, 0)
    side = case.moving.shape[0]
    grid = np.stack(np.meshgrid(np.linspace(0, side, 9), np.linspace(0, side, 9)), -1)
    points = grid.reshape(-1, 2)
    off = points @ (found.matrix - case.matrix)[:, :2].T + (found.matrix - case.matrix)[:, 2]
    rms = float(np.sqrt(np.mean(np.sum(off**2, axis=1))))
    return rms, found.mirrored == case.mirrored


@lru_cache(maxsize=2)
def _scene(lr_px: int) -> Float64Array:
    """One scene for all suites of a size: making tissue costs more than looking at it."""
    side = scene_px(lr_px) + 200
    return synthetic_tissue(side, side, seed=4242)


class RegistrationTests:
    """The requirements as tests. Derive, set `register` (and `register_affine`), collect.

    Attributes
    ----------
    count : int
        Pairs per suite.
    lr_px : int
        Side of the LR patches of the suites that measure accuracy: the limits are for 256.
    small_px : int
        Side in the suites that only ask for the right verdict.
    """

    count: int = 6
    lr_px: int = 256
    small_px: int = 128

    def register(self, lr: UInt8Array, hr_region: UInt8Array, scale: int) -> RegistrationAnswer:
        """The method under test: translation."""
        return wsisr_registrar("subpixel")(lr, hr_region, scale)

    def register_affine(
        self, lr: UInt8Array, hr_region: UInt8Array, scale: int
    ) -> RegistrationAnswer:
        """The method under test: with rotation, scale and distortion."""
        return wsisr_registrar("affine")(lr, hr_region, scale)

    def _check(self, suite: str, register: Registrar, lr_px: int | None = None) -> None:
        side = lr_px or self.lr_px
        found = run_suite(register, suite, range(self.count), scene=_scene(side), lr_px=side)
        faults = found.faults()
        assert not faults, "; ".join(faults)

    def test_whole_pixel_shifts_are_exact(self) -> None:
        self._check("A0", self.register, self.small_px)

    def test_levels_of_one_scan(self) -> None:
        self._check("A1", self.register)

    def test_a_second_scanner(self) -> None:
        self._check("B1", self.register)

    def test_rotation_scale_and_distortion(self) -> None:
        self._check("B2", self.register_affine)

    def test_local_drift_is_rejected_or_right(self) -> None:
        self._check("B3", self.register_affine, self.small_px)

    def test_pale_tissue(self) -> None:
        self._check("L", self.register)

    def test_other_places_are_rejected(self) -> None:
        self._check("W", self.register, self.small_px)
        self._check("W", self.register_affine, self.small_px)

    def test_blank_glass_is_rejected(self) -> None:
        self._check("N", self.register, self.small_px)
        self._check("N", self.register_affine, self.small_px)

    def test_places_outside_the_region_are_rejected(self) -> None:
        self._check("P", self.register, self.small_px)
        self._check("P", self.register_affine, self.small_px)
