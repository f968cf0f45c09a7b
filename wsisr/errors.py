"""The one error family.

Every error that a user can cause derives from `WsisrError`; its message names the file or
value, the fault and the remedy. Members also inherit the fitting builtin, so that callers
who know nothing of wsisr can still catch `FileNotFoundError` or `ValueError`. All of them
carry one message string, and so they survive the trip through a process pool.
"""

import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

# One slash: a path library has been at the URL before the message was made.
_LOGIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:/{1,2})[^/@\s'\"]*@")
_QUERY = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:/{1,2}[^\s?'\"]*)\?[^\s'\")]*")


def without_secrets(text: str) -> str:
    """A text whose URLs have lost their logins and queries, which are passwords and signatures."""
    return _QUERY.sub(r"\1", _LOGIN.sub(r"\1***@", text)) if ":/" in text else text


class WsisrError(Exception):
    """Base of every error that wsisr raises on purpose.

    Messages go to screens, logs and reports that are shared, so no message holds a URL's secrets.
    """

    def __init__(self, *arguments: object) -> None:
        super().__init__(*(without_secrets(a) if isinstance(a, str) else a for a in arguments))


class SlideError(WsisrError, OSError):
    """A slide cannot be opened or read."""


class MppError(WsisrError, ValueError):
    """A slide's resolution (um per pixel) is missing, implausible or contradictory."""


class MagnificationError(WsisrError, ValueError):
    """A slide does not have what a magnification or scale asks for."""


class GeometryError(WsisrError, ValueError):
    """Coordinates or sizes that make no exact geometry."""


class AnnotationError(WsisrError, ValueError):
    """An annotation file is broken, hostile or of an unknown format."""


class ManifestError(WsisrError, ValueError):
    """A manifest or an override table is wrong."""


class ConfigError(WsisrError, ValueError):
    """A setting is unknown, of the wrong type or out of range."""


class PluginError(ConfigError):
    """A plug-in is missing, cannot be imported, or does not give what it says."""


class RegistrationError(WsisrError, ValueError):
    """Input that cannot be registered at all (wrong shape or type, not a failed match)."""


class DegradationError(WsisrError, ValueError):
    """A degradation's name or parameter is wrong."""


class ModelError(WsisrError, ValueError):
    """A model's name, setting, weights or input is wrong."""


class OutputError(ModelError):
    """A network gave infinite values or NaN.

    `item` is which image of those that were given, `place` tells where in it, in words.
    """

    def __init__(self, message: str, place: str = "", item: int = 0) -> None:
        super().__init__(message)
        self.place = place
        self.item = item


class MemoryLimitError(ModelError):
    """Memory runs out for the smallest part of an image."""


class StoreError(WsisrError, OSError):
    """A pair store is missing, broken or not what was asked for."""


class CorruptStoreError(StoreError):
    """Stored bytes do not match their checksum, digest or declared layout."""


class NoSuchSlideError(StoreError, KeyError):
    """A store has no slide of that name."""


class DiskFullError(StoreError):
    """The disk that is written to is full; what is committed so far stays valid."""


class LockedError(WsisrError, OSError):
    """Another process holds what this one wants to write."""


class StoreLockedError(StoreError, LockedError):
    """Another build is writing this store."""


class BuildError(WsisrError, RuntimeError):
    """A build cannot start or cannot go on."""


def refuse_remote_output(output: object) -> None:
    """Refuse a URL as a place to write to: as a path it would be a local folder called ``s3:``.

    Raises
    ------
    ConfigError
    """
    # One slash: a path library may have been at it.
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", str(output))
    if found:
        raise ConfigError(
            f"the output is a {found[1]} address, and this command writes to local disks alone; "
            "write it to a folder here and, when it is whole, put it there: a store with wsisr "
            "upload, anything else with your storage's own tool (aws s3 cp --recursive, gcloud "
            "storage cp -r, rclone copy)."
        )


@contextmanager
def damage_is_clear(what: object, kind: type[WsisrError], remedy: str) -> Iterator[None]:
    """Turn whatever a damaged file makes of its reader into one sentence that names it.

    For content that others wrote and that is too rich to be checked value by value beforehand:
    a wrong type deep inside shows as any of Python's errors.

    Parameters
    ----------
    what : object
        The file.
    kind : type
        Of the error that is raised; errors of wsisr pass as they are.
    remedy : str
        What to do, without a full stop.
    """
    try:
        yield
    except WsisrError:
        raise
    except (
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
        zlib.error,
    ) as error:
        detail = " ".join(str(error).split())[:200]
        raise kind(f"{what} is damaged ({type(error).__name__}: {detail}); {remedy}.") from error
