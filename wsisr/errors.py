"""The one error family.

Every error that a user can cause derives from `WsisrError`; its message names the file or
value, the fault and the remedy. Members also inherit the fitting builtin, so that callers
who know nothing of wsisr can still catch `FileNotFoundError` or `ValueError`. All of them
carry one message string, and so they survive the trip through a process pool.
"""


class WsisrError(Exception):
    """Base of every error that wsisr raises on purpose."""


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


class LockedError(WsisrError, OSError):
    """Another process holds what this one wants to write."""


class StoreLockedError(StoreError, LockedError):
    """Another build is writing this store."""


class BuildError(WsisrError, RuntimeError):
    """A build cannot start or cannot go on."""
