"""Nuclei that appear and vanish: a proxy from blobs of haematoxylin, without any network.

Blobs of the size of nuclei are found in the haematoxylin channel of HR and of SR by the same
threshold and matched by place. They are no count of nuclei (texture makes blobs too, and two scans
of one field differ by some 2 to 6 %), so a share means something only beside that of the same field
with a scanner's noise, and beside bicubic's.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial import KDTree
from skimage.color import rgb2hed

from wsisr.arrays import Float64Array, UInt8Array
from wsisr.metrics.images import MetricError

DIAMETERS_UM = (5.0, 6.2, 7.7, 9.6, 12.0)
"""Scales of the search, a constant ratio apart."""
THRESHOLD = 0.008
"""Least response, in skimage's units of haematoxylin; the same for all images of a study."""
SMOOTHING_UM = 0.25
APART_UM = 5.0
REACH_UM = 3.0
"""Centres further apart than this are not one nucleus."""
COARSEST_UM_PER_PX = 1.25
"""The smallest blobs must span four px."""


@dataclass(frozen=True, kw_only=True)
class Blobs:
    """Where nuclei may be.

    Attributes
    ----------
    centres_um : ndarray, shape (N, 2)
        Along y and x from the centre of the first pixel.
    diameters_um : ndarray, shape (N,)
    responses : ndarray, shape (N,)
        Scale-normalised, falling.
    """

    centres_um: Float64Array
    diameters_um: Float64Array
    responses: Float64Array

    def __len__(self) -> int:
        return len(self.responses)

    def above(self, threshold: float) -> "Blobs":
        """Those that answer with more, as `find_blobs` would find them."""
        kept = self.responses > threshold
        return Blobs(**{name: values[kept] for name, values in vars(self).items()})


def find_blobs(rgb: UInt8Array, um_per_px: float, threshold: float = THRESHOLD) -> Blobs:
    """Bright round spots of haematoxylin, 5 to 12 um across.

    Colour deconvolution by the vectors of Ruifrok and Johnston (2001), as scikit-image has them;
    the scale-normalised Laplacian of Gaussians (Lindeberg 1998): a disk of diameter d answers most
    at sigma = d / (2 sqrt 2); local maxima over places 5 um apart and over scales. (scikit-image's
    `blob_log` parts blobs by their overlap, not by 5 um, and finds others: 3,335 in place of 2,894
    on images of MoNuSeg and DSB 2018, 2,171 of them the same; what is known of these blobs by
    measurement would have to be measured anew.)

    Parameters
    ----------
    rgb : ndarray, shape (H, W, 3), uint8
    threshold : float
        Least response.

    Raises
    ------
    MetricError
        No RGB image; pixels too coarse to show nuclei.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise MetricError(f"Nuclei are looked for in RGB, uint8; this is {rgb.dtype} {rgb.shape}.")
    if not 0 < um_per_px <= COARSEST_UM_PER_PX:
        raise MetricError(
            f"At {um_per_px:g} um/px nuclei are too small to be found; {COARSEST_UM_PER_PX:g} at "
            "most."
        )
    stain = ndimage.gaussian_filter(
        rgb2hed(rgb)[:, :, 0].astype(np.float32), SMOOTHING_UM / um_per_px, mode="nearest"
    )
    sigmas = [d / (2 * np.sqrt(2)) / um_per_px for d in DIAMETERS_UM]
    answers = np.stack(
        [-(s**2) * ndimage.gaussian_laplace(stain, s, mode="nearest") for s in sigmas]
    )
    # A maximum over the scales that is one over its neighbourhood too; ties go to the first.
    scale, best = answers.argmax(0), answers.max(0)
    apart = 2 * int(APART_UM / 2 / um_per_px) + 1
    peaks = (best == ndimage.maximum_filter(best, apart, mode="nearest")) & (best > threshold)
    y, x = np.nonzero(peaks)
    order = np.argsort(-best[y, x], kind="stable")
    y, x = y[order], x[order]
    return Blobs(
        centres_um=np.stack((y, x), axis=1) * np.float64(um_per_px),
        diameters_um=np.asarray(DIAMETERS_UM)[scale[y, x]],
        responses=best[y, x].astype(np.float64),
    )


def match_points(first: Float64Array, second: Float64Array, reach: float) -> NDArray[np.intp]:
    """The most pairs of points (N, 2) and (M, 2) that are no further apart than `reach`, each point
    in one: rows of the first and of the second, (K, 2).
    """
    if not len(first) or not len(second):
        return np.zeros((0, 2), np.intp)
    near = KDTree(first).sparse_distance_matrix(KDTree(second), reach, output_type="coo_matrix")
    graph = sparse.csr_matrix(
        (np.ones(near.nnz, np.int8), (near.row, near.col)), (len(first), len(second))
    )
    partner = maximum_bipartite_matching(graph, perm_type="column")
    found = np.flatnonzero(partner >= 0)
    return np.stack((found, partner[found]), axis=1).astype(np.intp)


@dataclass(frozen=True, kw_only=True)
class NucleiChange:
    """Blobs of HR that SR lacks, and of SR that HR lacks.

    Attributes
    ----------
    hr, sr : int
        Blobs of each.
    vanished_um, appeared_um : ndarray, shape (N, 3)
        Centre (y, x) and diameter of each.
    """

    hr: int
    sr: int
    vanished_um: Float64Array
    appeared_um: Float64Array

    @property
    def vanished(self) -> float:
        """Share of HR's blobs; NaN where HR has none."""
        return len(self.vanished_um) / self.hr if self.hr else float("nan")

    @property
    def appeared(self) -> float:
        """Share of SR's blobs; NaN where SR has none."""
        return len(self.appeared_um) / self.sr if self.sr else float("nan")


def nuclei_change(sr: UInt8Array, hr: UInt8Array, um_per_px: float) -> NucleiChange:
    """Compare the nuclei of SR with those of HR.

    A blob of one image is missing from the other only if nothing is there within 3 um that
    answers half as much: what falls just below the threshold has not gone.

    Parameters
    ----------
    sr, hr : ndarray, shape (H, W, 3), uint8
        Of the same field.

    Raises
    ------
    MetricError
        As `find_blobs`; the shapes differ.
    """
    if sr.shape != hr.shape:
        raise MetricError(f"SR of {sr.shape} and HR of {hr.shape} show different fields.")
    weak = [find_blobs(image, um_per_px, THRESHOLD / 2) for image in (hr, sr)]
    sure = [blobs.above(THRESHOLD) for blobs in weak]
    gone = [
        np.column_stack((mine.centres_um, mine.diameters_um))[
            np.setdiff1d(
                np.arange(len(mine)),
                match_points(mine.centres_um, theirs.centres_um, REACH_UM)[:, 0],
            )
        ]
        for mine, theirs in ((sure[0], weak[1]), (sure[1], weak[0]))
    ]
    return NucleiChange(hr=len(sure[0]), sr=len(sure[1]), vanished_um=gone[0], appeared_um=gone[1])
