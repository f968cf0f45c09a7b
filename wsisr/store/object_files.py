"""The files of a store in a bucket, read in place: ranges together, a bounded part kept in memory.

obstore does the travelling (the extra ``s3``). Credentials come from the standard chain alone
(``AWS_*``, ``GOOGLE_*`` and ``AZURE_*`` variables, roles of machines and pods; with boto3
installed, the profiles of ``~/.aws`` too), never from an address, and no message repeats what a
server answered, which may hold them.
"""

import json
import os
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from wsisr.errors import StoreError
from wsisr.store.caches import ProcessCache
from wsisr.store.places import Buffer

CACHE_BYTES = 256_000_000
"""What is kept of a store in the memory of a process at most; the oldest goes first."""
LANES = 16
"""Requests at the same time; what obstore cuts a request into comes on top."""
LISTING = "files.json"
"""What an upload leaves beside the root's metadata, for servers that cannot list."""

MARK = "upload.json"
"""What an upload that is not finished leaves: whose it is."""
PART_BYTES = 8 << 20
"""Larger files are sent in parts of this size."""

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,2}(?=[^/])")
SCHEMES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl", "http", "https")

T = TypeVar("T")
R = TypeVar("R")


def url_of(address: object) -> str | None:
    """The URL that an address is, mended where a path library took a slash; None for a path."""
    text = os.fspath(address) if isinstance(address, os.PathLike) else str(address)
    found = _URL.match(text)
    return f"{found[1].lower()}://{text[found.end() :]}" if found else None


_TRAVELLED: dict[str, int] = {}
"""The process in which obstore was first used."""


class ObjectFiles:
    """What lies below a prefix of a bucket, or below a web address; see `Files`.

    Parameters
    ----------
    url : str
        ``s3://bucket/pairs.zarr``; also ``gs://``, ``az://`` and, to read, ``https://``.
    store : obstore store or None
        In place of what the URL names.

    Raises
    ------
    StoreError
        For another kind of address, one that holds a password or a signature, or without obstore.
    """

    remote = True

    def __init__(self, url: str, store: Any = None) -> None:
        self.url = url.rstrip("/")
        scheme, _, rest = self.url.partition("://")
        if scheme not in SCHEMES and store is None:
            raise StoreError(
                f"{url}: a store is read from a folder or from {', '.join(SCHEMES[:3])}, az, http "
                "or https addresses."
            )
        if re.search(r"[?#]", rest) or ("@" in rest.partition("/")[0] and scheme[:4] != "abfs"):
            raise StoreError(
                f"{url}: passwords and signatures do not belong into an address; give them by "
                "environment variables or a role (docs/clusters.md)."
            )
        self.address = self.url
        self.lists = not scheme.startswith("http")
        self._given = store
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._store: Any = self._given
        self._pool: ThreadPoolExecutor | None = None
        self._busy = threading.local()
        self._cache: ProcessCache[tuple[str, int, int], Any] = ProcessCache(CACHE_BYTES, len)
        self._listing: dict[str, int] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return ObjectFiles, (self.url, self._given)

    @property
    def store(self) -> Any:
        """The obstore store of this process."""
        if self._pid != os.getpid():
            self._reset()
        if self._store is None:
            self._store = open_bucket(self.url)
        return self._store

    def get(self, key: str) -> bytes:
        return bytes(self._kept((key, 0, -1), lambda: self._ask(key, "get").bytes()))

    @contextmanager
    def open(self, key: str) -> Iterator["_Object"]:
        yield _Object(self, key)

    def ahead(self, wanted: Iterable[tuple[str, int, int]]) -> None:
        ranges: dict[str, set[tuple[int, int]]] = defaultdict(set)
        room = CACHE_BYTES // 2  # others read too
        for key, offset, length in wanted:
            if self._cache.get((key, offset, length)) is None and room >= length:
                ranges[key].add((offset, length))
                room -= length
        self.together(self._fetch, list(ranges.items()))

    def _fetch(self, task: tuple[str, set[tuple[int, int]]]) -> None:
        key, places = task
        starts, lengths = zip(*sorted(places), strict=True)
        parts = self._ask(key, "get_ranges", starts=starts, lengths=lengths)
        for start, length, part in zip(starts, lengths, parts, strict=True):
            self._keep((key, start, length), part)

    def together(self, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
        if len(items) < 2 or getattr(self._busy, "inside", False):
            return [work(item) for item in items]
        _ = self.store  # opened once, before threads ask for it
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(LANES, thread_name_prefix="wsisr-fetch")

        def inside(item: T) -> R:
            # One that waits for others of its own pool could wait for ever.
            self._busy.inside = True
            return work(item)

        return list(self._pool.map(inside, items))

    def exists(self, key: str) -> bool:
        try:
            self.get(key)  # what is asked for are small documents, and they are read next
        except FileNotFoundError:
            return False
        return True

    def names(self, key: str) -> list[str]:
        if not self.lists:
            prefix = f"{key}/" if key else ""
            below = [k[len(prefix) :] for k in self._listed() if k.startswith(prefix)]
            return sorted({k.partition("/")[0] for k in below})
        found = self._ask(key, "list_with_delimiter")
        paths = [*found["common_prefixes"], *(item["path"] for item in found["objects"])]
        return [path.rpartition("/")[2] for path in paths]

    def sizes(self, key: str) -> dict[str, int]:
        prefix = f"{key}/" if key else ""
        if self.lists:
            listed = {path: item["size"] for path, item in self.objects(key).items()}
        else:
            listed = self._listed()
        below = {k[len(prefix) :]: size for k, size in listed.items() if k.startswith(prefix)}
        return dict(sorted(below.items()))

    def objects(self, key: str) -> dict[str, Any]:
        """What obstore says of everything below: size, e_tag and last_modified by whole key."""
        found = self._ask(key or None, "list")
        return {item["path"]: item for chunk in found for item in chunk}

    def head(self, key: str) -> Any:
        """The same of one object."""
        if self.lists:
            return self._ask(key, "head")
        # Web servers that give a file need not answer what it would be.
        return self._ask(key, "get", options={"range": (0, 1)}).meta

    def head_of(self, key: str, count: int) -> bytes:
        """The first bytes of an object that is not empty."""
        return bytes(self._ask(key, "get_range", start=0, length=count))

    def fetch(self, key: str, path: Path) -> None:
        """Copy an object to this machine, by and by."""
        found = self._ask(key, "get")
        with path.open("wb") as file:
            self._guarded(lambda: [file.write(part) for part in found.stream()], key)

    def tags(self, key: str) -> dict[str, tuple[int, str]]:
        """Size and entity tag of everything below, by whole key."""
        return {
            path: (item["size"], (item["e_tag"] or "").strip('"'))
            for path, item in self.objects(key).items()
        }

    def put(self, key: str, parts: Sequence[bytes | memoryview | Path]) -> int:
        """As `Files.put`; here it is whole and visible when this returns. A file may be a part."""
        if len(parts) == 1 and isinstance(parts[0], Path):
            data: Any = parts[0]
            size = parts[0].stat().st_size
        else:
            data = b"".join(p.read_bytes() if isinstance(p, Path) else p for p in parts)
            size = len(data)
        self._ask(key, "put", data, chunk_size=PART_BYTES, max_concurrency=4)
        self.forget()
        return size

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects, missing ones too."""
        if keys:
            self._ask(list(keys), "delete")
            self.forget()

    def forget(self) -> None:
        """Let go of everything that is kept in memory."""
        self._cache.clear()
        self._listing = None

    def for_zarr(self, key: str) -> Any:
        from zarr.storage import ObjectStore, StorePath

        return StorePath(ObjectStore(self.store, read_only=True), key)

    def _listed(self) -> dict[str, int]:
        """Of a server that cannot list: what the upload left, if it is of this very root."""
        if self._listing is None:
            from wsisr.store.digests import content_digest
            from wsisr.store.layout import META

            try:
                listing = json.loads(self.get(LISTING))
                if listing["root"] != content_digest(self.get(META)):
                    raise ValueError("of another store")
                self._listing = {str(key): int(size) for key, size in listing["files"].items()}
            except (FileNotFoundError, KeyError, TypeError, ValueError, AttributeError) as error:
                raise StoreError(
                    f"{self.address}: a web server cannot be asked what lies there, and "
                    f"{LISTING}, which wsisr upload leaves, is missing or of another store; "
                    "read it by its s3://, gs:// or az:// address, or copy it here."
                ) from error
        return self._listing

    def _kept(self, what: tuple[str, int, int], fetch: Callable[[], Any]) -> Any:
        data = self._cache.get(what)
        if data is None:
            data = fetch()
            self._keep(what, data)
        return data

    def _keep(self, what: tuple[str, int, int], data: Any) -> None:
        if len(data) <= CACHE_BYTES // 4:
            self._cache.put(what, data)

    def _ask(self, key: Any, verb: str, *words: Any, **options: Any) -> Any:
        """Ask obstore; its refusals become ours, without what the server said."""
        store = self.store
        import obstore

        if _TRAVELLED.setdefault("pid", os.getpid()) != os.getpid():
            # Its threads are not in a forked child, which would wait for them for ever.
            raise StoreError(
                f"{self.address}: this process was forked from one that had read from a bucket; "
                "start workers by spawn (multiprocessing_context='spawn'), or read in threads."
            )
        ask = getattr(obstore, verb)
        return self._guarded(lambda: ask(store, key, *words, **options), key)

    def _guarded(self, work: Callable[[], R], key: Any) -> R:
        import obstore

        try:
            return work()
        except FileNotFoundError:
            raise FileNotFoundError(2, "No such object", f"{self.address}/{key}") from None
        except (obstore.exceptions.BaseError, ValueError) as error:
            where = f"{self.address}/{key}" if isinstance(key, str) else self.address
            raise StoreError(f"{where}: {_fault(error)}") from None


class _Object:
    """One object, read at positions; see `OpenFile`."""

    def __init__(self, files: ObjectFiles, key: str) -> None:
        self._files = files
        self._key = key

    def read_into(self, offset: int, buffers: Sequence[Buffer]) -> int:
        length = sum(len(buffer) for buffer in buffers)
        place = (self._key, offset, length)
        ask = self._files._ask
        data = memoryview(
            self._files._kept(
                place, lambda: ask(self._key, "get_range", start=offset, length=length)
            )
        )
        got = 0
        for buffer in buffers:
            part = data[got : got + len(buffer)]
            buffer[: len(part)] = part
            got += len(part)
        return got

    def tail(self, count: int) -> tuple[bytes, int]:
        try:
            options = {"range": {"suffix": count}}
            found = self._files._ask(self._key, "get", options=options)
        except StoreError:  # Azure knows no last bytes, and nobody the last of an empty object
            size = self._files._ask(self._key, "head")["size"]
            start = max(0, size - count)
            if not size:
                return b"", 0
            return bytes(self._files._ask(self._key, "get_range", start=start, end=size)), size
        return bytes(found.bytes()), int(found.meta["size"])


def open_bucket(url: str) -> Any:
    """The obstore store of a URL, by the standard chain of credentials; StoreError if obstore is
    missing, or does not understand the address or its settings."""
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError as error:
        raise StoreError(
            f"{url}: reading and writing buckets needs obstore: pip install 'wsisr[s3]'."
        ) from error
    endpoint = next(
        (os.environ[n] for n in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL") if os.environ.get(n)),
        "",
    )
    options: dict[str, Any] = {
        "retry_config": {"max_retries": 6, "retry_timeout": timedelta(seconds=60)},
        # Plain http where the user's own setting says so, as for a server on this machine.
        "client_options": {
            "allow_http": url.startswith("http:") or endpoint.startswith("http:"),
            "timeout": timedelta(minutes=10),
        },
    }
    if url.startswith("s3"):
        if endpoint:
            options["config"] = {"endpoint": endpoint}
        options["credential_provider"] = _profile()
    try:
        return from_url(url, **options)
    except (BaseError, ValueError) as error:
        raise StoreError(f"{url}: {_fault(error)}") from None


def _profile() -> Any:
    """Credentials of ``~/.aws``, which obstore reads by boto3 alone; None: by the rest of the
    chain."""
    named = os.environ.get("AWS_PROFILE")
    anonymous = os.environ.get("AWS_SKIP_SIGNATURE")
    if (
        "AWS_ACCESS_KEY_ID" in os.environ
        or anonymous
        or not (named or Path("~/.aws/credentials").expanduser().is_file())
    ):
        return None
    try:
        import boto3
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError as error:
        if named is None:
            return None
        raise StoreError(
            "AWS_PROFILE names a profile of ~/.aws, which is read by boto3: pip install boto3."
        ) from error
    return Boto3CredentialProvider(boto3.Session(profile_name=named))


def _fault(error: Exception) -> str:
    """What went wrong, from kind and code alone: answers repeat keys, tokens and signatures."""
    text = str(error)
    code = re.search(r"<Code>(\w{1,60})</Code>", text)
    status = re.search(r"status code: (\d{3})", text)
    said = ", ".join([*([code[1]] if code else []), *([status[1]] if status else [])])
    said = f" ({said})" if said else ""
    kind = type(error).__name__
    number = int(status[1]) if status else 0
    if code and code[1] == "NoSuchBucket":
        return f"there is no such bucket{said}; check its name and the endpoint."
    if number in (401, 403) or kind in ("PermissionDeniedError", "UnauthenticatedError"):
        return (
            f"you may not read or write there{said}; check the credentials in the environment "
            "(AWS_ACCESS_KEY_ID or a role), AWS_REGION, and what they permit."
        )
    if "No such file or directory" in text or ("metadata" in text.lower() and not status):
        return "no credentials were found; set AWS_ACCESS_KEY_ID and so on, or use a role."
    if number:
        return f"the server refused it{said}; check address, region and endpoint."
    if kind in ("GenericError", "JoinError"):
        return (
            "the server could not be reached; check the network, the address, AWS_ENDPOINT_URL and "
            "AWS_REGION."
        )
    return f"it was refused ({kind}); check the address."
