"""The files of a data set as their publisher lists them.

Nothing is downloaded: lists are printed for the programs that do it, and what wsisr does not hold
is read from the publisher's own list (``--list``): checksums of md5sum or sha256sum, a manifest of
the GDC, or a listing of ``aws s3 ls --recursive``.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase as fnmatch
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import quote

import yaml

from wsisr.building.manifest import load_manifest
from wsisr.errors import ManifestError

Form = Literal["table", "urls", "s3", "gdc", "checksums"]
GDC_FILES = "https://api.gdc.cancer.gov/files"
GDC_DATA = "https://api.gdc.cancer.gov/data"
_CHECKSUM = re.compile(r"([0-9a-fA-F]{32}|[0-9a-fA-F]{64})[ \t]+\*?(\S.*)")
_S3_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +(\d+) (\S.*)")


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """One file of a data set.

    Attributes
    ----------
    name : str
        Path as the publisher has it, with ``/``.
    size : int or None
        Bytes, where published exactly.
    shown : str
        The size as published, where it is rounded.
    checksum : str
        MD5 or SHA-256 in hex; empty where none is published.
    url : str
        Empty where it has no address of its own.
    id, state : str
        Of the GDC.
    """

    name: str
    size: int | None = None
    shown: str = ""
    checksum: str = ""
    url: str = ""
    id: str = ""
    state: str = ""


@dataclass(frozen=True, kw_only=True)
class Publisher:
    """What is known of a data set's files.

    Attributes
    ----------
    seen, notes : tuple of str
        Where it was read; what should be known.
    files : tuple of PublishedFile
        Empty where the publisher's list is not held here.
    bucket : str
        Address of the data set on S3.
    folders : mapping of str to str
        Parts of the bucket, and what is in them.
    projects : tuple of str
        Of the GDC.
    list_at : str
        Where the publisher keeps the list.
    """

    title: str
    page: str = ""
    licence: str = ""
    seen: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    files: tuple[PublishedFile, ...] = ()
    bucket: str = ""
    folders: Mapping[str, str] = field(default_factory=dict)
    projects: tuple[str, ...] = ()
    list_at: str = ""


def publisher_of(name: str) -> Publisher:
    """What public sources state of the files of a built-in manifest; ManifestError for nothing."""
    found = unstated(name)
    if not found.seen:
        raise ManifestError(
            f"{name}: no public list of its files is known here; give the publisher's own with "
            "--list (checksums of md5sum, a GDC manifest, or the output of aws s3 ls --recursive)"
        )
    return found


def unstated(name: str) -> Publisher:
    """Likewise, where it does not matter that nothing is stated: a list is given."""
    manifest = load_manifest(name).name
    known = yaml.safe_load((files("wsisr.building") / "publishers.yaml").read_text("utf-8"))
    for entry in known.values():
        if manifest in entry["manifests"]:
            return _publisher(entry)
    return Publisher(title=manifest)


def _publisher(entry: Mapping[str, Any]) -> Publisher:
    s3 = entry.get("s3") or {}
    return Publisher(
        title=entry["title"],
        page=entry.get("page", ""),
        licence=entry.get("licence", ""),
        seen=tuple(entry.get("seen", ())),
        notes=tuple(entry.get("notes", ())),
        files=tuple(
            PublishedFile(
                name=item["name"],
                shown=item.get("shown", ""),
                checksum=item.get("md5", ""),
                url=item.get("url", ""),
            )
            for item in entry.get("files", ())
        ),
        bucket=s3.get("bucket", ""),
        folders=s3.get("folders", {}),
        projects=tuple((entry.get("gdc") or {}).get("projects", ())),
        list_at=entry.get("list_at", ""),
    )


def read_list(path: Path) -> tuple[PublishedFile, ...]:
    """A publisher's list: checksums, a GDC manifest, or a listing of S3; ManifestError where it
    cannot be read, a line is none of these, or a name leads out of the folder."""
    try:
        lines = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path} cannot be read as a list of files: {error}") from None
    if lines and lines[0].split("\t")[:2] == ["id", "filename"]:
        found = [_gdc_line(path, lines[0], line) for line in lines[1:]]
    else:
        found = [_plain_line(path, line) for line in lines]
    for item in found:
        parts = PurePosixPath(item.name).parts
        if item.name.startswith(("/", "\\")) or ".." in parts or ":" in item.name:
            raise ManifestError(f"{path}: the name {item.name!r} leads out of the folder")
    if not found:
        raise ManifestError(f"{path} lists no files")
    return tuple(found)


def _gdc_line(path: Path, head: str, line: str) -> PublishedFile:
    row = dict(zip(head.split("\t"), line.split("\t"), strict=False))
    if not (row.get("filename") and row.get("size", "").isdigit()):
        raise ManifestError(f"{path}: {line[:60]!r} is no line of a GDC manifest")
    return PublishedFile(
        name=row["filename"],
        size=int(row["size"]),
        checksum=row.get("md5", "").lower(),
        url=f"{GDC_DATA}/{row['id']}",
        id=row["id"],
        state=row.get("state", ""),
    )


def _plain_line(path: Path, line: str) -> PublishedFile:
    if match := _CHECKSUM.fullmatch(line.strip()):
        name = match.group(2).removeprefix("./").replace("\\", "/")
        return PublishedFile(name=name, checksum=match.group(1).lower())
    if match := _S3_LINE.fullmatch(line.strip()):
        return PublishedFile(name=match.group(2), size=int(match.group(1)))
    raise ManifestError(
        f"{path}: {line[:60]!r} is neither a checksum and a name, nor a line of a GDC manifest or "
        "of aws s3 ls --recursive"
    )


def chosen_files(
    listed: Sequence[PublishedFile], patterns: Sequence[str]
) -> tuple[PublishedFile, ...]:
    """Those whose path fits one of the patterns (``fnmatch``), all where there is none;
    ManifestError where none fits."""
    found = tuple(
        item for item in listed if not patterns or any(fnmatch(item.name, p) for p in patterns)
    )
    if patterns and not found:
        raise ManifestError(f"--only {' '.join(patterns)}: no file of the list fits")
    return found


def describe_files(publisher: Publisher, listed: Sequence[PublishedFile]) -> str:
    """Everything that is stated, for a person."""
    lines = [f"{publisher.title}: {publisher.page}"]
    if publisher.licence:
        lines.append(f"licence     {publisher.licence}")
    lines += [f"read in     {text}" for text in publisher.seen]
    for folder, words in publisher.folders.items():
        lines.append(f"on S3       {publisher.bucket}/{folder}: {words}")
    if publisher.projects:
        lines.append(f"of the GDC  {', '.join(publisher.projects)}: --as gdc prints the query")
    if publisher.list_at:
        lines.append(f"list at     {publisher.list_at}")
    lines += [f"note        {text}" for text in publisher.notes]
    if listed:
        lines.append("")
    for item in listed:
        size = f"{item.size:,} bytes" if item.size is not None else item.shown or "size not stated"
        lines.append(f"{item.name}  {size}  {item.checksum or 'no checksum stated'}")
    return "\n".join(lines)


def print_as(
    form: Form, publisher: Publisher, listed: Sequence[PublishedFile], folder: str
) -> list[str]:
    """Lines for the program that downloads: addresses, S3 commands, GDC manifest, checksums;
    ManifestError where the publisher's files are not to be had in this way."""
    if form == "urls" and listed and all(item.url for item in listed):
        return [item.url for item in listed]
    if form == "checksums" and listed and all(item.checksum for item in listed):
        return [f"{item.checksum}  {item.name}" for item in listed]
    if form == "s3" and publisher.bucket:
        return _s3_commands(publisher, listed, folder)
    if form == "gdc":
        if listed and all(item.id for item in listed):
            rows = [(i.id, i.name, i.checksum, str(i.size), i.state) for i in listed]
            return ["\t".join(row) for row in (("id", "filename", "md5", "size", "state"), *rows)]
        if publisher.projects:
            return [_gdc_query(publisher.projects)]
    known = f"; {publisher.title} is at {publisher.page}" if publisher.page else ""
    raise ManifestError(f"no list of the form {form} is stated{known}")


def _s3_commands(publisher: Publisher, listed: Sequence[PublishedFile], folder: str) -> list[str]:
    copy = "aws s3 cp --no-sign-request"
    if not listed:
        first = [f"{copy} {publisher.list_at} {folder}/"] if publisher.list_at else []
        whole = f"{copy} --recursive {publisher.bucket}"
        return first + [f"{whole}/{part} {folder}/{part}" for part in publisher.folders]
    inside = publisher.bucket.rpartition("/")[2] + "/"
    names = [item.name.removeprefix(inside) for item in listed]
    return [f"{copy} '{publisher.bucket}/{name}' '{folder}/{name}'" for name in names]


def _gdc_query(projects: Sequence[str]) -> str:
    fields = {
        "cases.project.project_id": list(projects),
        "data_type": ["Slide Image"],
        "experimental_strategy": ["Diagnostic Slide"],
        "access": ["open"],
    }
    content = [
        {"op": "in", "content": {"field": field, "value": value}} for field, value in fields.items()
    ]
    filters = quote(json.dumps({"op": "and", "content": content}, separators=(",", ":")), safe="")
    return (
        f"curl -o gdc_manifest.txt '{GDC_FILES}?filters={filters}&size=20000&return_type=manifest'"
    )
