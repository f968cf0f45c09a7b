"""Whose slide it is: a value with its source, like a resolution.

Splits by patient are worth what is known of patients. The user's table says it best, then the
file's own metadata, the layout of a known data set, the barcodes of public archives anywhere in
the path, and a rule that the user gives; where nothing does, one slide is taken for one patient,
and that is said. Values that may identify a person (from DICOM, tables and folders) become keyed
pseudonyms at once (`wsisr.selection.pseudonyms`); barcodes of public archives stay clear, so that
leak checks between stores of different people find them.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import PurePosixPath

from wsisr.errors import ManifestError
from wsisr.selection.pseudonyms import Pseudonyms


class PatientSource(StrEnum):
    """How a patient is known, best first."""

    TABLE = "table"
    DICOM = "dicom"
    LAYOUT = "layout"
    BARCODE = "barcode"
    RULE = "rule"
    ASSUMED = "assumed"


WORDS = {
    PatientSource.TABLE: "by the override table",
    PatientSource.DICOM: "by DICOM PatientID",
    PatientSource.LAYOUT: "by the data set's layout",
    PatientSource.BARCODE: "by barcodes in the path",
    PatientSource.RULE: "by --patient-from",
    PatientSource.ASSUMED: "assumed: one slide, one patient",
}


@dataclass(frozen=True, kw_only=True)
class Patient:
    """Who a slide is of.

    Attributes
    ----------
    name : str
        What is stored: a public barcode, a pseudonym, or the slide's id where it is assumed to
        be a patient of its own.
    draw : str
        What the draw of the split hangs on: the value itself, so that splits depend on no key.
        It may identify a person: it is never written, printed or represented.
    detail : str
        Which archive or layout, in a word or two; may be empty.
    """

    name: str
    draw: str = field(repr=False)
    source: PatientSource
    detail: str = ""

    @property
    def quality(self) -> str:
        """``"stated"``, ``"recognised"`` (from names) or ``"assumed"``."""
        if self.source in (PatientSource.TABLE, PatientSource.DICOM):
            return "stated"
        return "assumed" if self.source is PatientSource.ASSUMED else "recognised"


def own_patient(name: str, layout: str = "", draw: str = "") -> Patient:
    """A slide (or glass) that is a patient of its own: by a data set's layout, or assumed."""
    source = PatientSource.LAYOUT if layout else PatientSource.ASSUMED
    return Patient(name=name, draw=draw or name, source=source, detail=layout)


_SEPARATOR = r"[^0-9A-Za-z/]{1,2}"


@dataclass(frozen=True)
class _Barcode:
    archive: str
    pattern: re.Pattern[str]
    form: Callable[[re.Match[str]], str]
    everywhere: bool = True
    """Whether the value means that archive wherever it stands, also in a hospital's table."""


def _barcode(
    archive: str, pattern: str, form: Callable[[re.Match[str]], str], everywhere: bool = True
) -> _Barcode:
    bounded = rf"(?<![0-9A-Za-z])(?:{pattern})(?![0-9A-Za-z])"
    return _Barcode(archive, re.compile(bounded, re.IGNORECASE), form, everywhere)


_BARCODES = (
    _barcode(
        "TCGA",
        rf"TCGA{_SEPARATOR}([A-Z0-9]{{2}}){_SEPARATOR}([A-Z0-9]{{4}})",
        lambda m: f"TCGA-{m[1]}-{m[2]}".upper(),
    ),
    _barcode(
        "TARGET",
        rf"TARGET{_SEPARATOR}(\d{{2}}){_SEPARATOR}([A-Z0-9]{{6}})",
        lambda m: f"TARGET-{m[1]}-{m[2]}".upper(),
    ),
    _barcode(
        "CPTAC",
        rf"(C3[LN]){_SEPARATOR}(\d{{5}})",
        lambda m: f"{m[1]}-{m[2]}".upper(),
    ),
    # The first phase of CPTAC: a site's number, the organ and the participant.
    _barcode("CPTAC", r"(\d{2}(?:BR|CO|OV)\d{3})", lambda m: m[1].upper()),
    _barcode(
        "HCMI",
        rf"HCM{_SEPARATOR}([A-Z]{{4}}){_SEPARATOR}(\d{{4}}){_SEPARATOR}([A-Z]\d{{2}})",
        lambda m: f"HCM-{m[1]}-{m[2]}-{m[3]}".upper(),
    ),
    _barcode("GTEx", rf"GTEX{_SEPARATOR}([A-Z0-9]{{4,5}})", lambda m: f"GTEX-{m[1]}".upper()),
    _barcode(
        "CAMELYON17",
        r"patient_(\d{3})(?:_node_\d+)?",
        lambda m: f"patient_{m[1]}",
        everywhere=False,
    ),
    _barcode(
        "TIGER",
        r"TC_S\d+_(P\d{6})_C\d{4}_B\d+",
        lambda m: f"TIGER-{m[1]}".upper(),
        everywhere=False,
    ),
    _barcode(
        "ACROBAT",
        r"(\d+)_(?:HE|ER|PGR|HER2|KI67)_(?:train|val|test)",
        lambda m: f"ACROBAT-{m[1]}",
        everywhere=False,
    ),
)
"""Patients in the names of public archives, by what their portals publish: TCGA and TARGET (GDC),
CPTAC and HCMI (TCIA, GDC), GTEx, and challenges whose file names carry a patient."""

_PANDA = re.compile(r"(?P<image>[0-9a-f]{32})\.tiff?", re.IGNORECASE)
"""File names of PANDA. It holds several biopsies of one patient and publishes of whom none is: an
image's own id is all that there is, the same in every folder, and an assumption all the same."""

_PLACEHOLDERS = re.compile(
    r"|[0x?*_ -]+|n/?a|none|null|unknown|anon\w*|de-?ident\w*|removed|redacted|patient(?:[ _]?id)?|"
    r"test|default|not ?available|id",
    re.IGNORECASE,
)
"""PatientIDs that stand for no patient: one for all slides of an anonymised export."""


def barcode_of(relative: str) -> tuple[str, str] | None:
    """Archive and patient of a public barcode in a path, or None.

    The innermost part of the path that has one counts: the file's name before its folders.

    >>> barcode_of("6a1f/lung_tcga_AA_0001_01Z.svs")
    ('TCGA', 'TCGA-AA-0001')
    """
    for part in reversed(PurePosixPath(relative).parts):
        for barcode in _BARCODES:
            if match := barcode.pattern.search(part):
                return barcode.archive, barcode.form(match)
    return None


def public_name(value: str) -> tuple[str, str] | None:
    """The same for a value that someone states: only where it is such a barcode as a whole."""
    for barcode in _BARCODES:
        match = barcode.pattern.fullmatch(value.strip()) if barcode.everywhere else None
        if match:
            return barcode.archive, barcode.form(match)
    return None


def is_placeholder(value: str) -> bool:
    """Whether a PatientID stands for no patient in particular."""
    return _PLACEHOLDERS.fullmatch(value.strip()) is not None


@dataclass(frozen=True)
class PatientRule:
    """`--patient-from`: ``folder`` (the folder that holds the slide) or a regular expression.

    An expression is searched for in the path relative to the source, with ``/``; its group
    ``patient``, else its first group, else all that it finds, is the patient.

    Raises
    ------
    ManifestError
        If the text is no expression.
    """

    text: str

    def __post_init__(self) -> None:
        try:
            re.compile(self.text)
        except re.error as error:
            raise ManifestError(
                f"--patient-from {self.text!r}: neither 'folder' nor a regular expression "
                f"({error}); e.g. '^(S\\d+)' or '/(?P<patient>\\d+)/'."
            ) from None

    def find(self, relative: str) -> str:
        """The patient that the rule finds in a path; empty where it finds none."""
        if self.text == "folder":
            return PurePosixPath(relative).parent.name
        match = re.search(self.text, relative)
        if match is None:
            return ""
        if "patient" in match.re.groupindex:
            return match["patient"] or ""
        return (match[1] if match.re.groups else match[0]) or ""


def stated_patient(value: str, source: PatientSource, pseudonyms: Pseudonyms) -> Patient:
    """A patient that a table, DICOM or a rule of the user names."""
    public = public_name(value)
    if public is not None:
        return Patient(name=public[1], draw=public[1], source=source, detail=public[0])
    return Patient(name=pseudonyms.of("patient", value), draw=value, source=source)


def find_patient(
    relative: str,
    *,
    own: Patient,
    dicom_id: str = "",
    rule: PatientRule | None = None,
    pseudonyms: Pseudonyms,
) -> Patient:
    """Who a slide is of, by everything but the user's table.

    Parameters
    ----------
    relative : str
        The slide's path in its source, with ``/``.
    own : Patient
        What the data set's layout says, or the assumption that it is a patient of its own.
    dicom_id : str
        PatientID (0010,0020) without its issuer: two issuers of one number are taken for one
        patient, which can waste slides and can not leak any. Empty or a placeholder: none.
    """
    if not is_placeholder(dicom_id):
        return stated_patient(dicom_id, PatientSource.DICOM, pseudonyms)
    if own.source is PatientSource.LAYOUT:
        return own
    found = barcode_of(relative)
    if found is not None:
        archive, name = found
        return Patient(name=name, draw=name, source=PatientSource.BARCODE, detail=archive)
    value = rule.find(relative) if rule is not None else ""
    if value:
        return stated_patient(value, PatientSource.RULE, pseudonyms)
    if image := _PANDA.fullmatch(PurePosixPath(relative).name):
        return replace(own, name=image["image"].lower(), detail="PANDA publishes no patients")
    return own


def describe_patients(patients: Sequence[Patient], folders: Iterable[str] = ()) -> list[str]:
    """How patients were found, and a warning where splits rest on an assumption.

    Parameters
    ----------
    patients : sequence of Patient
        One per slide.
    folders : iterable of str
        The folder of each slide, for the hint that folders may be patients.
    """
    if not patients:
        return []
    count = len({patient.name for patient in patients})
    sources = Counter(patient.source for patient in patients)
    ways = [
        f"{sources[source]} {WORDS[source]}{_details(source, patients)}"
        for source in PatientSource
        if sources[source]
    ]
    lines = [f"Patients: {count} of {len(patients)} slides; {'; '.join(ways)}."]
    if warning := assumption_warning(sources[PatientSource.ASSUMED], len(patients)):
        held = Counter(folders)
        hint = ""
        if len(held) > 1 and max(held.values()) > 1 and "" not in held:
            hint = f" The {len(held)} folders may be patients: --patient-from folder."
        lines.append(f"Warning: {warning}{hint}")
    return lines


def _details(source: PatientSource, patients: Sequence[Patient]) -> str:
    """Where names of a source come from, in brackets; empty where nothing is known of it."""
    found = Counter(p.detail for p in patients if p.source is source and p.detail)
    if source in (PatientSource.BARCODE, PatientSource.LAYOUT, PatientSource.ASSUMED):
        return f" ({', '.join(sorted(found))})" if found else ""
    # Somebody said the name; that an archive publishes it was seen in the name alone.
    public = (f"{count} named as in {archive}" for archive, count in sorted(found.items()))
    return f" ({', '.join(public)})" if found else ""


def assumption_warning(assumed: int, slides: int) -> str:
    """What rests on assumed patients, in one sentence; empty where nothing does."""
    if not assumed or slides < 2:
        return ""
    which = "no slide says" if assumed == slides else f"{assumed} of {slides} slides do not say"
    which = f"1 of {slides} slides does not say" if assumed == 1 else which
    return (
        f"{which} whose it is, and each such slide is assumed to be a patient of its own: slides "
        "of one patient may stand in train and in test. Name patients with --mpp-override CSV "
        "(columns slide, patient) or --patient-from folder|REGEX."
    )
