"""Networks, degradations and recipes of other packages: how they come in, what is kept of them.

Code comes in by two doors alone: the entry point of a package that somebody installed, and a
``--plugin`` that somebody typed. What runs and stores record of it is a name and a digest, which
are compared and never imported, so that no downloaded folder makes code run.
"""

import hashlib
import importlib
import importlib.util
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from traceback import walk_tb
from types import ModuleType
from typing import Any, Generic, TypeVar

from wsisr.errors import PluginError, WsisrError
from wsisr.words import closest

T = TypeVar("T")
log = logging.getLogger(__name__)
OPTION = "--plugin"
_FILES = "wsisr_plugin_"
_SHOWN = 12
_OWN = "wsisr"


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """Where a network, degradation or recipe of somebody else comes from.

    Attributes
    ----------
    source : str
        Name of the file (without its folder), or of the module.
    package : str
        Name and version of the package whose entry point it is; else empty.
    digest : str
        SHA-256 of the source: of the file, or of all Python files of the outermost package;
        empty where there is no file.
    """

    source: str
    package: str
    digest: str


class Registry(Generic[T]):
    """Things of one kind by name: those that are built in, and those of plug-ins.

    Parameters
    ----------
    what : str
        The kind in words, e.g. ``"degradation"``.
    group : str
        Entry points by which packages offer more of them: each is named as what it registers.
    error : type
        Of a name that is taken.
    """

    def __init__(self, what: str, group: str, error: type[WsisrError]) -> None:
        self.what, self.group, self.error = what, group, error
        self.broken: dict[str, str] = {}
        self._items: dict[str, T] = {}
        self._modules: dict[str, str] = {}
        self._origins: dict[str, Plugin] = {}
        _REGISTRIES[what] = self

    def add(self, name: str, value: T) -> None:
        """Make a thing known; a name may be taken once.

        For the functions that register: what called them says whose the thing is.
        """
        if name in self._items:
            origin = self.origin(name)
            owner = f"of {origin.source}" if origin else "built in"
            raise self.error(f"a {self.what} named {name!r} is there already ({owner}); rename one")
        module = str(sys._getframe(2).f_globals.get("__name__", ""))
        self._items[name], self._modules[name] = value, module
        # What is built in is often first imported by a plug-in.
        if module.partition(".")[0] != _OWN:
            for added in _RECORDING[-1:]:
                added.append((self, name))

    def find(self, name: str) -> T | None:
        """What has this name, an installed package's too; None if nothing has.

        Raises
        ------
        PluginError
            An installed package says that it has it, and is broken.
        """
        if name not in self._items:
            for point in _points(self.group, name):
                self._open(point)
        return self._items.get(name)

    def get(self, name: str) -> T:
        """What has this name, as `find`; an error where nothing has, with the closest name."""
        found = self.find(name)
        if found is None:
            raise self.error(self.unknown(name))
        return found

    def unknown(self, name: object) -> str:
        """The sentence of a name that nothing has."""
        near = closest(str(name), self)
        return f"no {self.what} is named {name!r}; {near} (one of your own: {OPTION} FILE.py)"

    def load_installed(self) -> None:
        """Load what installed packages offer; what cannot be loaded stands in `broken`."""
        for point in _points(self.group):
            origin = self.origin(point.name)
            if origin is not None and (origin.package, origin.source) in (
                (_package(point), origin.source),
                ("", point.module),
            ):
                continue
            try:
                self._open(point)
            except PluginError as error:
                self.broken[point.name] = str(error)

    def _open(self, point: EntryPoint) -> None:
        label = f"the entry point {point.name} ({self.group}) of {_package(point)}"
        if point.name in self._items:
            raise PluginError(
                f"{label}: a {self.what} of that name is there already; rename it, or uninstall "
                "the package"
            )
        _import_module(point.module, label, _package(point))
        if point.name not in self._items:
            offered = [name for registry, name in _members(point.module) if registry is self]
            raise PluginError(
                f"{label}: its module {point.module} registers no {self.what} of that name "
                f"({', '.join(offered) or 'none at all'}); an entry point is named as what it gives"
            )

    def origin(self, name: str) -> Plugin | None:
        """The plug-in that a name comes from; None: built in, or unknown."""
        if name in self._origins or name not in self._items:
            return self._origins.get(name)
        module = self._modules[name]
        if module.partition(".")[0] == _OWN:
            return None
        # Registered by a program that imported it by itself.
        return _plugin(module)

    def record(self, name: str) -> dict[str, str] | None:
        """What is kept of the plug-in of a name; None: built in."""
        origin = self.origin(name)
        if origin is None:
            return None
        return {
            "what": self.what,
            "name": name,
            "source": origin.source,
            "package": origin.package,
            "sha256": origin.digest,
        }

    def assign(self, name: str, plugin: Plugin) -> None:
        """Say where a name comes from."""
        self._origins[name] = plugin

    def remove(self, name: str) -> None:
        """Forget a name (of a plug-in that broke while it was loaded)."""
        for table in (self._items, self._modules, self._origins):
            table.pop(name, None)

    @property
    def modules(self) -> frozenset[str]:
        """Modules that have registered something."""
        return frozenset(self._modules.values())

    def registered_by(self, top: str) -> list[str]:
        """Names that a module, or a package, has registered."""
        return [n for n, module in self._modules.items() if module.partition(".")[0] == top]

    def __contains__(self, name: object) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def items(self) -> Iterable[tuple[str, T]]:
        """Names and things, in the order in which they came."""
        return self._items.items()


_REGISTRIES: dict[str, Registry[Any]] = {}
_RECORDING: list[list[tuple[Registry[Any], str]]] = []
_GIVEN: dict[str, str] = {}
_SAID: set[str] = set()


def load_plugins(sources: Iterable[str]) -> None:
    """Load what a user named by ``--plugin``: files (``net.py``) or modules (``package.net``).

    Raises
    ------
    PluginError
        It is not there, cannot be imported, takes a name that is taken, or registers nothing.
    """
    for source in sources:
        label = f"{OPTION} {source}"
        path = Path(source)
        if path.suffix == ".py" or path.name != source:
            key = _import_file(path, label).__name__
        else:
            key = _import_module(source, label, "").__name__
        _GIVEN[key] = source


def given() -> tuple[str, ...]:
    """What was named by ``--plugin``, for processes that are started from this one.

    A process pool hands it on: ``initializer=load_plugins, initargs=(given(),)``.
    """
    return tuple(_GIVEN.values())


def check_recorded(records: object, where: str) -> list[str]:
    """Compare the plug-ins that a run or a store was made with to those that are here.

    Parameters
    ----------
    records : list of mapping
        As `Registry.record` gave them; anything else counts as none.
    where : str
        What they were recorded in, for messages.

    Returns
    -------
    list of str
        A sentence for each one that has changed; each is logged once, too.

    Raises
    ------
    PluginError
        One of them is not here; says which, and how to give it.
    """
    lines = []
    for record in records if isinstance(records, list) else []:
        if not isinstance(record, Mapping):
            continue
        what, name = str(record.get("what")), str(record.get("name"))
        registry = _REGISTRIES.get(what)
        if registry is None or registry.find(name) is None:
            raise PluginError(missing(record, where))
        here = registry.record(name)
        if here is None or here["sha256"] != record.get("sha256"):
            now = "built in" if here is None else f"from {words(here)}"
            lines.append(
                f"{where}: its {what} {name} was from {words(record)}, and is {now}, now: results "
                "may differ; install the one of then to repeat them."
            )
    for line in set(lines) - _SAID:
        log.warning(line)
        _SAID.add(line)
    return lines


def at_fault(error: BaseException) -> str:
    """A sentence on the line of a plug-in that an error comes from; empty if it is none's."""
    tops = {module.partition(".")[0] for r in _REGISTRIES.values() for module in r.modules}
    place = ""
    for frame, line in walk_tb(error.__traceback__):
        code, module = frame.f_code, str(frame.f_globals.get("__name__"))
        if module.partition(".")[0] in tops - {_OWN, "__main__"}:
            place = f"{Path(code.co_filename).name}, line {line}, in {code.co_name}"
    return place and f"{place}: {type(error).__name__}{_reason(error)}"


def _reason(error: BaseException) -> str:
    first = str(error).strip().partition("\n")[0]
    return f" ({first})" if first else ""


def words(record: Mapping[str, object]) -> str:
    """Where a recorded thing comes from, e.g. ``network.py, SHA-256 84252a51678d``."""
    package = f" of {record['package']}" if record.get("package") else ""
    digest = str(record.get("sha256") or "")[:_SHOWN] or "unknown"
    return f"{record.get('source')}{package}, SHA-256 {digest}"


def missing(record: Mapping[str, object], where: str) -> str:
    """The sentence about a plug-in that is recorded and not here."""
    package = record.get("package")
    way = f"install {package}" if package else f"give {OPTION} {record.get('source')}"
    return (
        f"{where} needs the {record.get('what')} {record.get('name')}, which is not built in: it "
        f"came from {words(record)}; {way}"
    )


def _import_file(path: Path, label: str) -> ModuleType:
    if not path.is_file():
        raise PluginError(f"{label}: there is no such file; give a Python file, or a module's name")
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    # The name is a function of the content: processes of one run find each other's classes.
    name = f"{_FILES}{path.stem}_{digest[:_SHOWN]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_loader(name, loader=None, origin=str(path))
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(path)
    plugin = Plugin(source=path.name, package="", digest=digest)
    with _registering(label, name, plugin):
        sys.modules[name] = module
        # What is run is what the digest is of, whatever happens to the file meanwhile.
        exec(compile(data, str(path), "exec"), module.__dict__)
    return module


def _import_module(name: str, label: str, package: str) -> ModuleType:
    if name in sys.modules:
        module = sys.modules[name]
        members = _members(name)
        if not members:
            raise PluginError(_nothing(label))
        for registry, member in members:
            if package or registry.origin(member) is None:
                registry.assign(member, _plugin(name, package))
        return module
    with _registering(label, name, None, package):
        return importlib.import_module(name)


@contextmanager
def _registering(label: str, name: str, plugin: Plugin | None, package: str = "") -> Iterator[None]:
    """Import a plug-in: what it registers is its own, and nothing of it stays if it breaks."""
    added: list[tuple[Registry[Any], str]] = []
    before = set(sys.modules)
    _RECORDING.append(added)
    try:
        yield
        if not added and not _members(name):
            raise PluginError(_nothing(label))
    except BaseException as error:
        for registry, member in added:
            registry.remove(member)
        top = name.partition(".")[0]
        for loaded in set(sys.modules) - before:
            if loaded.partition(".")[0] == top:
                del sys.modules[loaded]
        if isinstance(error, PluginError | KeyboardInterrupt | MemoryError):
            raise
        log.info("where %s broke", label, exc_info=True)
        raise PluginError(_broken(label, name, error)) from None
    finally:
        _RECORDING.pop()
    origin = plugin or _plugin(name, package)
    for registry, member in added:
        registry.assign(member, origin)


def _broken(label: str, name: str, error: BaseException) -> str:
    """One sentence about a plug-in that cannot be imported."""
    if isinstance(error, WsisrError):
        return f"{label}: {error}"
    if isinstance(error, ModuleNotFoundError) and error.name in _prefixes(name):
        return (
            f"{label}: Python finds no module {error.name!r}; install the package that has it, or "
            "give the path of its file"
        )
    if isinstance(error, SystemExit):
        return f"{label}: it ends the program instead of registering something; it is no plug-in"
    own = [n for f, n in walk_tb(error.__traceback__) if f.f_globals.get("__name__") == name]
    line = error.lineno if isinstance(error, SyntaxError) else own[-1] if own else None
    place = "" if line is None else f" in line {line}"
    return (
        f"{label}: it cannot be imported, {type(error).__name__}{place}{_reason(error)}; mend it, "
        "or do without it"
    )


def _nothing(label: str) -> str:
    return (
        f"{label}: it registers nothing; a plug-in calls register, register_degradation, "
        "register_recipe, register_tracker or register_segmenter of wsisr"
    )


def _prefixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]


def _points(group: str, name: str | None = None) -> list[EntryPoint]:
    """Entry points by name; two of one name are refused, for which of them is meant?"""
    found = entry_points(group=group) if name is None else entry_points(group=group, name=name)
    unique = {(point.name, point.value, _package(point)): point for point in found}
    points = sorted(unique.values(), key=lambda point: (point.name, point.value))
    if name is not None and len(points) > 1:
        raise PluginError(
            f"{' and '.join(map(_package, points))} both offer {name!r} ({group}); uninstall one"
        )
    return points


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "a package"


def _plugin(module: str, package: str = "") -> Plugin:
    return Plugin(source=_source(module), package=package, digest=_digest(module))


def _source(module: str) -> str:
    file = getattr(sys.modules.get(module), "__file__", None)
    named = module.startswith(_FILES) or module == "__main__"
    return Path(file).name if named and file else module


def _digest(module: str) -> str:
    """SHA-256 of a module's source: of all Python files of the outermost package it is in."""
    for name in _prefixes(module):
        file = getattr(sys.modules.get(name), "__file__", None)
        if not file or not Path(file).is_file():
            continue  # a namespace, or no file at all
        path = Path(file)
        if path.stem != "__init__":
            return hashlib.sha256(path.read_bytes()).hexdigest()
        total = hashlib.sha256()
        for each in sorted(path.parent.rglob("*.py")):
            data = each.read_bytes()
            total.update(f"{each.relative_to(path.parent).as_posix()} {len(data)}\n".encode())
            total.update(data)
        return total.hexdigest()
    return ""


def _members(name: str) -> list[tuple[Registry[Any], str]]:
    """What a module, or the package that it is in, has registered already."""
    top = name.partition(".")[0]
    return [(r, member) for r in _REGISTRIES.values() for member in r.registered_by(top)]
