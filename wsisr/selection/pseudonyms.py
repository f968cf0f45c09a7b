"""Keyed pseudonyms: the same person is the same name, and nobody can tell who.

A pseudonym is an HMAC-SHA-256 of the value under a secret key that stays with the user: a bare hash
of a patient number is undone by trying all numbers. With one key the pseudonyms of different
stores agree, so that leak checks across them work.
"""

import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from wsisr.errors import ConfigError

MIN_KEY_BYTES = 16
DIGITS = 16
"""Hexadecimal digits of a pseudonym: 64 bits, no collision among millions of patients."""


@dataclass(frozen=True)
class Pseudonyms:
    """Makes pseudonyms; the key is fetched when the first is needed.

    Parameters
    ----------
    fetch : callable
        Gives the key; see `read_key` and `own_key`.
    """

    fetch: Callable[[], bytes]
    _key: list[bytes] = field(default_factory=list, repr=False, compare=False)

    def of(self, kind: str, value: str) -> str:
        """The pseudonym of a value among others of its kind, e.g. ``patient-3f9c0a1b2c3d4e5f``."""
        return f"{kind}-{self._digest(f'{kind}:{value}')}"

    @property
    def used(self) -> bool:
        """Whether any pseudonym was made."""
        return bool(self._key)

    def check(self) -> str:
        """What tells keys apart without giving them away, for stores."""
        return self._digest("check:wsisr")

    def _digest(self, text: str) -> str:
        if not self._key:
            self._key.append(hashlib.sha256(self.fetch().strip()).digest())
        return hmac.new(self._key[0], text.encode(), hashlib.sha256).hexdigest()[:DIGITS]


def pseudonyms_of(key_file: Path | None) -> Pseudonyms:
    """By the key in a file, or the user's own."""
    return Pseudonyms(own_key if key_file is None else lambda: read_key(key_file))


def key_path() -> Path:
    """Where the user's own key lies: ``$XDG_CONFIG_HOME/wsisr/patient.key``."""
    base = os.environ.get("XDG_CONFIG_HOME") or os.environ.get("APPDATA")
    return (Path(base) if base else Path.home() / ".config") / "wsisr" / "patient.key"


def read_key(path: Path) -> bytes:
    """A key from a file.

    Raises
    ------
    ConfigError
        If it cannot be read or is too short to be a secret.
    """
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise ConfigError(
            f"{path}: the key for patient pseudonyms cannot be read ({error.strerror}); make one "
            f"with: openssl rand -hex 32 > {path}"
        ) from None
    if len(key) < MIN_KEY_BYTES:
        raise ConfigError(
            f"{path}: {len(key)} bytes are too few for a secret key ({MIN_KEY_BYTES} at least); "
            "make one with: openssl rand -hex 32"
        )
    return key


def own_key() -> bytes:
    """The user's own key, made at first need, readable by the user alone.

    Raises
    ------
    ConfigError
        If it can neither be read nor made.
    """
    path = key_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        if not path.exists():
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_hex(32).encode() + b"\n")
            try:
                # A link is made by one process of many and never over another's.
                os.link(draft, path)
            except FileExistsError:
                pass
            finally:
                draft.unlink()
    except OSError as error:
        raise ConfigError(
            f"{path}: no key for patient pseudonyms can be kept there ({error.strerror}); give one "
            "with --patient-key FILE."
        ) from None
    return read_key(path)
