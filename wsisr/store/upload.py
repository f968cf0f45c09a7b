"""A finished store into a bucket, slide by slide, so that nobody ever reads half of one.

An object is there whole or not at all. Of a slide, its metadata come last; of the store, the
root's: whoever finds the root finds every slide that it lists. A kill loses the objects in hand;
the same command goes on behind what is there, by size and checksum, not by what it remembers.
"""

import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from wsisr.errors import StoreError, without_secrets
from wsisr.progress import ProgressEvent, Reporter, silent
from wsisr.store.digests import content_digest
from wsisr.store.layout import META, PATCHES, SLIDES, SPLITS
from wsisr.store.metadata import to_json
from wsisr.store.object_files import LISTING, MARK, PART_BYTES, ObjectFiles, url_of
from wsisr.store.reader import PairStore, open_pairs
from wsisr.store.schema import KEPT

LANES = 4
"""Files on their way at the same time, each in up to four parts of 8 MiB."""


@dataclass(frozen=True, kw_only=True)
class UploadResult:
    """What an upload did.

    Attributes
    ----------
    slides, sent, there : int
        Slides of the store; files that were sent, and that were there as they should be.
    """

    address: str
    slides: int
    sent: int
    there: int
    sent_bytes: int

    def __str__(self) -> str:
        kept = f", {self.there:,} were there" if self.there else ""
        return (
            f"{self.address}: {self.slides:,} slides; {self.sent:,} files "
            f"({self.sent_bytes / 1e6:,.1f} MB) sent{kept}. Read it where it is: "
            f'wsisr train --data {self.address}, or wsisr.open_pairs("{self.address}").'
        )


def upload_store(
    path: Path, target: str, *, overwrite: bool = False, reporter: Reporter = silent
) -> UploadResult:
    """Put a finished store into a bucket, or bring the one there up to date.

    Parameters
    ----------
    target : str
        ``s3://bucket/pairs.zarr``, ``gs://...`` or ``az://...``.
    overwrite : bool
        Replace another store there. A store of the same manifest whose slides are all among this
        one's is no other one: it is added to.

    Raises
    ------
    StoreError
        If the store is not finished or not as it was written, if the target is no bucket, or
        holds something else.
    """
    url = url_of(target)
    if url is None or url.startswith("http"):
        raise StoreError(
            f"{without_secrets(str(target))} is no bucket; name one as s3://bucket/{path.name}, "
            "gs://... or az://..."
        )
    return upload_into(path, ObjectFiles(url), overwrite=overwrite, reporter=reporter)


def upload_into(
    path: Path, files: ObjectFiles, *, overwrite: bool = False, reporter: Reporter = silent
) -> UploadResult:
    """As `upload_store`, into files that are open."""
    store = open_pairs(path)
    if not store.split_names():
        raise StoreError(f"{path}: its build is not finished; run the same command again.")
    return _Upload(store, files, reporter).run(overwrite)


class _Upload:
    def __init__(self, store: PairStore, files: ObjectFiles, reporter: Reporter) -> None:
        self._store, self._here = store, store.paths.root
        self._files, self._report = files, reporter
        self._root = store.paths.meta.get()
        self._mark = to_json({"store": store.content_digest()})
        self._sizes: dict[str, int] = {}
        self._judged: list[str] = []
        """Columns `kept` that `wsisr keep` rewrote: they belong to the splits."""
        self._sent = self._found = self._bytes = 0

    def run(self, overwrite: bool) -> UploadResult:
        self._make_room(overwrite)
        self._files.put(MARK, [self._mark])
        names = list(self._store.slides)
        for done, name in enumerate(names, 1):
            self._slide(name)
            self._report(
                ProgressEvent(stage="upload", done=done, total=len(names), unit="slide", item=name)
            )
        if (self._here / META).get() != self._root:
            raise StoreError(
                f"{self._here} was changed while it was uploaded; run the same command again."
            )
        current = self._bytes_of(META)
        if current != self._root:
            # Until the new root stands there is none: old splits are never read with new slides.
            self._files.delete([META])
        self._send(self._judged)
        splits = [f"{SPLITS}/{key}" for key in (self._here / SPLITS).sizes()]
        there = self._files.tags(SPLITS)
        self._files.delete(sorted(set(there) - set(splits)))
        self._send(splits, there)
        groups = f"{SLIDES}/{META}"
        if self._bytes_of(groups) != self._local(groups).read_bytes():
            self._send([groups])
        self._sizes[groups] = self._local(groups).stat().st_size
        # Of a store that was to be replaced when a run was killed.
        self._files.delete(sorted(set(self._files.tags(SLIDES)) - set(self._sizes)))
        listing = {"root": content_digest(self._root), "files": self._sizes}
        self._files.put(LISTING, [to_json(listing)])
        self._files.put(META, [self._root])
        self._files.delete([MARK])
        return UploadResult(
            address=self._files.address,
            slides=len(names),
            sent=self._sent,
            there=self._found,
            sent_bytes=self._bytes,
        )

    def _make_room(self, overwrite: bool) -> None:
        """Refuse what is another's; take away another store where that is wanted."""
        files, where = self._files, self._files.address
        mark, root = self._bytes_of(MARK), self._bytes_of(META)
        if mark is None and root is None:
            if files.names(""):
                raise StoreError(
                    f"{where} is not empty and no pair store; choose another address, or empty it "
                    "with your storage's own tool."
                )
            return
        other = self._other(root, mark)
        if not other:
            return
        if not overwrite:
            raise StoreError(
                f"{where} holds {other}; add --overwrite to replace it, or choose another address."
            )
        if root is not None and not _is_pair_store(root):
            raise StoreError(
                f"{where} holds something that is no pair store, so --overwrite does not delete "
                "it; choose another address."
            )
        # From here on it is ours to finish, also after a kill.
        files.put(MARK, [self._mark])
        files.delete([META])
        files.delete([key for key in files.sizes("") if key != MARK])

    def _other(self, root: bytes | None, mark: bytes | None) -> str:
        """What there is other than this store or a part of it, in words; empty for nothing."""
        ours = self._store.attributes
        if root is not None:
            if not _is_pair_store(root):
                return "something that is no pair store"
            theirs = json.loads(root)["attributes"]["wsisr"]
            same = ("manifest_sha256", "magnifications", "codec")
            if any(theirs.get(key) != ours.get(key) for key in same):
                return "a store of another manifest or other settings"
            if not set(theirs["slides"]) <= set(ours["slides"]):
                return "a store with slides that this one does not list"
            for name in theirs["slides"]:
                meta = self._bytes_of(f"{SLIDES}/{name}/{META}")
                if meta is not None and name not in self._store.slides:
                    return f"slide {name}, which is not in this store"
                if meta is not None and meta != self._store.paths.slide(name).meta.get():
                    return f"another slide {name}"
        elif mark is not None and mark != self._mark:
            return "a part of another store, or of an older form of this one"
        return ""

    def _slide(self, name: str) -> None:
        """All files of a slide, its metadata last."""
        view, folder = self._store.slides[name], f"{SLIDES}/{name}"
        view.check()
        sizes = {f"{folder}/{key}": size for key, size in (self._here / folder).sizes().items()}
        self._sizes |= sizes
        meta = f"{folder}/{META}"
        there = self._files.tags(folder)
        expected = (self._here / meta).get()
        complete = meta in there and self._bytes_of(meta) == expected
        if complete and {key: size for key, (size, _) in there.items()} == sizes:
            kept = f"{folder}/{PATCHES}/{KEPT}/c/0"
            if kept in there and there[kept][1] != _tag(self._local(kept)):
                self._judged.append(kept)
            self._found += len(sizes) - self._judged.count(kept)
            return
        if meta in there:
            self._files.delete([meta])
        self._files.delete(sorted(set(there) - set(sizes)))
        self._send([key for key in sizes if key != meta], there)
        self._files.put(meta, [expected])
        self._sent += 1
        self._bytes += len(expected)

    def _send(self, keys: Iterable[str], there: dict[str, tuple[int, str]] | None = None) -> None:
        """Send files that are not there as they are here."""
        known: dict[str, tuple[int, str]] = {} if there is None else there

        def send(key: str) -> int | None:
            source = self._local(key)
            size = source.stat().st_size
            if known.get(key, (-1, ""))[0] == size and known[key][1] == _tag(source):
                return None
            return self._files.put(key, [source])

        with ThreadPoolExecutor(LANES, thread_name_prefix="wsisr-upload") as pool:
            keys = list(keys)
            for key, size in zip(keys, pool.map(send, keys), strict=True):
                self._sizes[key] = size or self._sizes.get(key) or known[key][0]
                self._found += size is None
                self._sent += size is not None
                self._bytes += size or 0

    def _local(self, key: str) -> Path:
        return Path(str(self._store.path), key)

    def _bytes_of(self, key: str) -> bytes | None:
        self._files.forget()
        try:
            return self._files.get(key)
        except FileNotFoundError:
            return None


def _is_pair_store(root: bytes) -> bool:
    try:
        attributes = json.loads(root)["attributes"]["wsisr"]
        return "format" in attributes and isinstance(attributes["slides"], list)
    except (ValueError, KeyError, TypeError):
        return False


def _tag(path: Path) -> str:
    """The entity tag that S3 gives a file that obstore sent; other servers have other tags, and a
    file without the right one is sent again."""
    sums = []
    with path.open("rb") as file:
        while part := file.read(PART_BYTES):
            sums.append(hashlib.md5(part, usedforsecurity=False))
    if len(sums) < 2:
        return (sums[0] if sums else hashlib.md5(b"", usedforsecurity=False)).hexdigest()
    joined = b"".join(one.digest() for one in sums)
    return f"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(sums)}"
