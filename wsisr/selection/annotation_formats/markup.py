"""XML from outside, parsed without entities, DTDs and surprises of encoding."""

import codecs
import re
from pathlib import Path
from typing import Any

import defusedxml.ElementTree
from defusedxml.common import DefusedXmlException

from wsisr.errors import AnnotationError

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def decoded(data: bytes) -> str | None:
    """Text of UTF-16 or UTF-32, or of UTF-8 with a mark, whatever its own declaration says.

    None for anything else, which the parsers decode themselves.
    """
    for mark, name in _BOMS:
        if data.startswith(mark):
            return data[len(mark) :].decode(name, "replace")
    # Without a mark: the first characters of XML and JSON are ASCII.
    for name, at in (("utf-16-le", 0), ("utf-16-be", 1)):
        if data[at : at + 1] in (b"<", b"{", b"[") and data[1 - at : 2 - at] == b"\0":
            return data.decode(name, "replace")
    return None


def parse_xml(path: Path, data: bytes) -> Any:
    """The root element.

    Raises
    ------
    AnnotationError
        Broken or hostile XML: entities and DTDs are refused.
    """
    text = decoded(data)
    content = data if text is None else re.sub(r"^\s*<\?xml[^>]*\?>", "", text)
    try:
        return defusedxml.ElementTree.fromstring(content, forbid_dtd=True)
    except DefusedXmlException as error:
        raise AnnotationError(
            f"{path}: uses XML entities or a DTD, which annotation files do not need; refused."
        ) from error
    except (defusedxml.ElementTree.ParseError, ValueError, LookupError) as error:
        raise AnnotationError(f"{path}: is no valid XML ({str(error)[:120]}).") from error
