"""Whether two scans show one glass: what their nodes say, once they have been matched in detail."""

import numpy as np

from wsisr.arrays import Int64Array
from wsisr.registration.certificate import TWO_SCANS
from wsisr.registration.nodes import TISSUE, Nodes

MIN_NODES = 8
NODE_NCC_BAND = 0.6
"""Nodes of one glass measure 0.8 and more; of neighbouring sections 0.3 and less."""
SAME_GLASS_SHARE = 0.5


def shown_by_both(nodes: Nodes) -> Nodes:
    """Nodes that say something about the glass: they match, or the fixed scan has tissue there.

    Tissue that came off between the scans, or that one scanner took for glass, is no sign of
    another section.
    """
    if not len(nodes):
        return nodes
    usual = TISSUE * float(np.percentile(nodes.texture, 90))
    bare = nodes.texture < max(TWO_SCANS.min_texture, usual)
    return nodes.which(~bare | (nodes.ncc_band >= NODE_NCC_BAND))


def why_not_one_glass(nodes: Nodes) -> str:
    """Why nodes that both scans show are no proof of one glass; empty if they are."""
    good = int(np.sum(nodes.ncc_band >= NODE_NCC_BAND))
    if len(nodes) < MIN_NODES:
        return (
            f"too little in common: only {len(nodes)} places show tissue in both scans, and "
            f"{MIN_NODES} are needed to tell whether they are of one glass"
        )
    if good < MIN_NODES or good / len(nodes) < SAME_GLASS_SHARE:
        return (
            f"not the same glass: only {good} of {len(nodes)} places match in detail "
            f"(median band NCC {float(np.median(nodes.ncc_band)):.2f}); sections of one block hold "
            "other cells"
        )
    return ""


def why_not_one_piece(piece: Int64Array) -> str:
    """Why places that match in detail give no map between them; empty if some do.

    Parameters
    ----------
    piece : ndarray, shape (nodes,)
        Which of the pieces that move together each belongs to, -1 for none.
    """
    if (piece >= 0).any():
        return ""
    return (
        "places match in detail, but no neighbours agree on where: the tissue is bent between them "
        "more than can be followed"
    )
