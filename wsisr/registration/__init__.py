"""Alignment: of LR patches with HR, of the levels of one slide, of two scans of one glass."""

from wsisr.registration.certificate import (
    ONE_SLIDE,
    TWO_SCANS,
    Affine,
    Gate,
    Method,
    PairCertificate,
    Verdict,
)
from wsisr.registration.pair import register_pair

__all__ = [
    "ONE_SLIDE",
    "TWO_SCANS",
    "Affine",
    "Gate",
    "Method",
    "PairCertificate",
    "Verdict",
    "register_pair",
]
