"""A folder compared with the files that a publisher lists: what is missing, cut off, changed."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from wsisr.checkup.published_files import PublishedFile
from wsisr.errors import ManifestError
from wsisr.slides.leftout import UNFINISHED

_HASHES = {32: "md5", 64: "sha256"}


@dataclass(frozen=True, kw_only=True)
class FileListComparison:
    """A folder beside a list.

    Attributes
    ----------
    listed, right : int
        Files of the list, and those that are there and agree with all that was compared.
    compared : str
        What was compared.
    missing, truncated, changed, extra : tuple of str
        Not there; shorter than listed, empty, or left by an unfinished download; another size or
        checksum; not on the list.
    """

    listed: int
    right: int
    compared: str
    missing: tuple[str, ...]
    truncated: tuple[str, ...]
    changed: tuple[str, ...]
    extra: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether everything of the list is there as listed."""
        return not (self.missing or self.truncated or self.changed)

    def lines(self, shown: int = 20) -> list[str]:
        """For a person."""
        lines = [f"{self.right} of {self.listed} files are there ({self.compared})"]
        for words in ("missing", "truncated", "changed", "extra"):
            names: tuple[str, ...] = getattr(self, words)
            lines += [f"  {words:9} {name}" for name in names[:shown]]
            if len(names) > shown:
                lines.append(f"  {words:9} and {len(names) - shown} more")
        return lines


def compare_folder(
    folder: Path, listed: Sequence[PublishedFile], *, read: bool
) -> FileListComparison:
    """Compare a folder with a list.

    A file is looked for at its listed path, else anywhere by its name, as programs and people lay
    them (the GDC's client makes a folder for each).

    Parameters
    ----------
    read : bool
        Also read every file that has a checksum.

    Raises
    ------
    ManifestError
        There is no such folder, or nothing to compare with.
    """
    if not folder.is_dir():
        raise ManifestError(f"{folder} is no folder")
    if not listed:
        raise ManifestError(
            "the publisher's list is not held here, so that there is nothing to compare the folder "
            "with; give the list with --list"
        )
    there = {p.relative_to(folder).as_posix(): p for p in _visible(folder)}
    by_name: dict[str, list[str]] = {}
    for path in there:
        by_name.setdefault(PurePosixPath(path).name, []).append(path)
    verdicts: dict[str, list[str]] = {word: [] for word in ("missing", "truncated", "changed", "")}
    used: set[str] = set()
    for item in listed:
        place = _find(item.name, there, by_name)
        if place is None:
            unfinished = _unfinished(item.name, by_name)
            used.update(unfinished)
            verdicts["truncated" if unfinished else "missing"].append(item.name)
        else:
            used.add(place)
            verdicts[_verdict(there[place], item, read)].append(item.name)
    sized = sum(item.size is not None for item in listed)
    summed = sum(bool(item.checksum) for item in listed) if read else 0
    return FileListComparison(
        listed=len(listed),
        right=len(verdicts[""]),
        compared=f"names; sizes of {sized}; checksums of {summed}",
        missing=tuple(verdicts["missing"]),
        truncated=tuple(verdicts["truncated"]),
        changed=tuple(verdicts["changed"]),
        extra=tuple(sorted(set(there) - used)),
    )


def _visible(folder: Path) -> Iterable[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden:
            yield path


def _find(name: str, there: Mapping[str, Path], by_name: Mapping[str, list[str]]) -> str | None:
    parts = PurePosixPath(name).parts
    # The publisher's path may begin above or below the folder that was given.
    for start in range(len(parts)):
        shorter = "/".join(parts[start:])
        if shorter in there:
            return shorter
    found = by_name.get(parts[-1], [])
    return found[0] if len(found) == 1 else None


def _unfinished(name: str, by_name: Mapping[str, list[str]]) -> list[str]:
    last = PurePosixPath(name).name
    return [path for suffix in UNFINISHED for path in by_name.get(last + suffix, [])]


def _verdict(path: Path, item: PublishedFile, read: bool) -> str:
    size = path.stat().st_size
    if size == 0 and item.size != 0:
        return "truncated"
    if item.size is not None and size != item.size:
        return "truncated" if size < item.size else "changed"
    if read and item.checksum and _checksum(path, _HASHES[len(item.checksum)]) != item.checksum:
        return "changed"
    return ""


def _checksum(path: Path, kind: str) -> str:
    with open(path, "rb") as file:
        new = partial(hashlib.new, kind, usedforsecurity=False)
        return hashlib.file_digest(file, new).hexdigest()
