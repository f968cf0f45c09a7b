"""Strict settings: every value of an architecture is a typed field, a typo is an error."""

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

from wsisr.errors import ModelError
from wsisr.words import closest

S = TypeVar("S")


def later(default: Any) -> Any:
    """A field that came after models had been saved: they lack it, and are as `default` says."""
    return dataclasses.field(default=default, metadata={"later": True})


def missing(settings_type: type, known: Iterable[str]) -> list[str]:
    """Fields that a saved model has to have and lacks, sorted."""
    fields = dataclasses.fields(settings_type)
    return sorted({f.name for f in fields if not f.metadata.get("later")} - set(known))


def override(base: S, changes: Mapping[str, Any], model: str) -> S:
    """A copy of a settings object with some fields changed.

    Raises
    ------
    ModelError
        For a field that does not exist (with the closest one that does), or a value of the
        wrong type or out of range.
    """
    hints = typing.get_type_hints(type(base))
    checked = {}
    for key, value in changes.items():
        if key not in hints:
            raise ModelError(f"{model} has no setting {key!r}; {closest(key, hints)}")
        checked[key] = _checked(value, hints[key], f"{model}: {key}")
    return dataclasses.replace(base, **checked)  # type: ignore[type-var]


def from_text(settings_type: type, key: str, text: str, model: str) -> Any:
    """Read one ``key=value`` of a command line as the type that the field has."""
    hints = typing.get_type_hints(settings_type)
    if key not in hints:
        raise ModelError(f"{model} has no setting {key!r}; {closest(key, hints)}")
    for candidate in _readings(text):
        try:
            return _checked(candidate, hints[key], f"{model}: {key}")
        except ModelError:
            continue
    return _checked(text, hints[key], f"{model}: {key}")


def _readings(text: str) -> Iterable[Any]:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        yield words[text.lower()]
    if "," in text:
        yield tuple(next(iter(_readings(part.strip()))) for part in text.split(",") if part.strip())
    for kind in (int, float):
        try:
            yield kind(text)
        except ValueError:
            continue
    yield text


def _checked(value: Any, hint: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value in args:
            return value
        raise ModelError(f"{where} is {value!r}; it must be one of {', '.join(map(repr, args))}")
    if origin in (types.UnionType, typing.Union):
        for option in args:
            try:
                return _checked(value, option, where)
            except ModelError:
                continue
    elif origin is tuple and isinstance(value, tuple | list):
        inner = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
        if len(inner) == len(value):
            return tuple(_checked(v, t, where) for v, t in zip(value, inner, strict=True))
    elif hint is type(None) and value is None:
        return None
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif (
        isinstance(hint, type)
        and isinstance(value, hint)
        and not (hint is int and isinstance(value, bool))
    ):
        return value
    name = getattr(hint, "__name__", str(hint)) if origin is None else str(hint)
    raise ModelError(f"{where} is {value!r}; it must be of type {name}")


def at_least_one(settings: Any, model: str, *names: str) -> None:
    """Raise `ModelError` unless each of these settings is 1 or more (for `__post_init__`)."""
    for name in names:
        require(getattr(settings, name) >= 1, f"{model}: {name} must be at least 1")


def require(condition: bool, sentence: str) -> None:
    """Raise `ModelError` with the sentence unless the condition holds (for `__post_init__`)."""
    if not condition:
        raise ModelError(sentence)
