"""How often the tables call two equally good models different, and how often they see a gain.

Equal models are drawn again and again and judged as the tables judge them (`unit_means`, `compare`,
`holm`; signed-rank tests are computed for many draws at once, and what they let through is given
to `compare`). The unit is the patient: each has one slide, or one to five of them, of one to five
images each; a model's offset is shared by a patient's slides in part, and by a slide's images in
part. "Skewed" and "heavy" say how the offsets are distributed; "five models" is the rate at which
a table of five equal models holds any difference: each against the first, the best against all.
"Upper" is the one-sided 95 % bound of a rate (Clopper and Pearson). Gains are in standard
deviations of a patient's difference.

    python benchmarks/verdicts.py --draws 10000
"""

import argparse
from collections.abc import Callable
from itertools import combinations

import numpy as np
from scipy import stats

from wsisr.arrays import Float64Array
from wsisr.metrics.statistics import SIGNIFICANT, compare, holm, unit_means

PATIENTS = (6, 7, 8, 10, 12, 15, 20, 30, 50)
GAINS = (0.5, 1.0, 1.5)
BOUND = 0.055
AT_ONCE = 1000
MOST = 5
Noise = Callable[[np.random.Generator, tuple[int, ...]], Float64Array]
NOISES: dict[str, Noise] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "skewed": lambda rng, shape: rng.exponential(size=shape),
    "heavy": lambda rng, shape: rng.standard_t(3, size=shape),
}


class Draws:
    """Scores of images: draws x patients x slides x images, of which some exist.

    Attributes
    ----------
    units : ndarray, (models, draws, patients)
        Means of patients, as `unit_means` makes them.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        shape: tuple[int, int, int],
        slides: int,
        noise: Noise,
        gain: float = 0.0,
    ) -> None:
        models, draws, patients = shape
        full = (draws, patients, slides, MOST)
        some = np.arange(slides)[:, None] < rng.integers(1, slides + 1, (draws, patients, 1, 1))
        self.exists = some & (np.arange(MOST) < rng.integers(1, MOST + 1, (*full[:3], 1)))
        images = 26.0 + 3.0 * rng.normal(size=(*full[:2], 1, 1)) + rng.normal(size=full)
        self.scores = np.stack(
            [
                images
                + 0.2 * noise(rng, (draws, patients, 1, 1))
                + 0.2 * noise(rng, (*full[:3], 1))
                + 0.1 * noise(rng, full)
                for _ in range(models)
            ]
        )
        count = self.exists.sum(-1)
        by_slide = (self.scores * self.exists).sum(-1) / np.maximum(count, 1)
        self.units = by_slide.sum(-1) / (count > 0).sum(-1)
        if gain:
            spread = (self.units[1] - self.units[0]).std(-1, ddof=1, keepdims=True)
            self.units[1] += gain * spread

    def check(self) -> None:
        """The first draw is what the tables would make of it."""
        patient, slide, image = np.nonzero(self.exists[0])
        made = unit_means(
            self.scores[0, 0, patient, slide, image],
            [f"{p}/{s}" for p, s in zip(patient, slide, strict=True)],
            {f"{p}/{s}": ("patient", str(p)) for p, s in zip(patient, slide, strict=True)},
        )
        assert np.allclose(list(made.values()), self.units[0, 0], rtol=1e-12, atol=0.0)

    def p_values(self, first: int, second: int) -> Float64Array:
        return np.asarray(stats.wilcoxon(self.units[first] - self.units[second], axis=1).pvalue)


def pair_rate(
    draws: int, patients: int, slides: int, noise: Noise, seed: int, gain: float = 0.0
) -> int:
    """How many of the draws tell two models apart, the second better by `gain`."""
    rng = np.random.default_rng(seed)
    hits = 0
    for start in range(0, draws, AT_ONCE):
        made = Draws(rng, (2, min(AT_ONCE, draws - start), patients), slides, noise, gain)
        if not gain and not start:
            made.check()
        for at in np.flatnonzero(made.p_values(1, 0) < SIGNIFICANT):
            first, second = (dict(enumerate(units.tolist())) for units in made.units[:, at])
            hits += compare(second, first).distinguishable
    return hits


def table_rate(draws: int, patients: int, models: int, seed: int) -> int:
    """How many tables of equal models hold a difference (intervals left aside)."""
    rng = np.random.default_rng(seed)
    pairs = list(combinations(range(models), 2))
    hits = 0
    for start in range(0, draws, AT_ONCE):
        shape = (models, min(AT_ONCE, draws - start), patients)
        made = Draws(rng, shape, 1, NOISES["normal"])
        found = np.stack([made.p_values(*pair) for pair in pairs], axis=1)
        best = made.units.mean(-1).argmax(0)
        for at in np.flatnonzero(found.min(1) < SIGNIFICANT):
            shown = [
                float(p)
                for p, pair in zip(found[at], pairs, strict=True)
                if 0 in pair or best[at] in pair
            ]
            adjusted = holm(shown, len(pairs))
            hits += any(p is not None and p < SIGNIFICANT for p in adjusted)
    return hits


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--draws", type=int, default=10_000)
    draws = parser.parse_args().draws
    settings = (("one slide", 1, "normal"), ("one to five", MOST, "normal"))
    settings += (("skewed", MOST, "skewed"), ("heavy", MOST, "heavy"))
    header = [*(f"{name} (upper)" for name, *_ in settings), "five models (upper)"]
    header += [f"power {gain:g} sd" for gain in GAINS]
    print("| patients | " + " | ".join(header) + " |")
    print("|---:" * (len(header) + 1) + "|")
    worst = 0.0
    for patients in PATIENTS:
        rates = [pair_rate(draws, patients, k, NOISES[name], patients) for _, k, name in settings]
        rates.append(table_rate(draws, patients, 5, patients))
        cells = []
        for hits in rates:
            upper = float(stats.beta.ppf(0.95, hits + 1, draws - hits))
            worst = max(worst, upper)
            cells.append(f"{100 * hits / draws:.2f} % ({100 * upper:.2f})")
        for gain in GAINS:
            seen = pair_rate(draws // 10, patients, 1, NOISES["normal"], patients, gain)
            cells.append(f"{1000 * seen / draws:.0f} %")
        print("| " + " | ".join([str(patients), *cells]) + " |", flush=True)
    print(f"Largest upper bound: {100 * worst:.2f} % (at most {100 * BOUND:g} %)")
    raise SystemExit(worst > BOUND)


if __name__ == "__main__":
    main()
