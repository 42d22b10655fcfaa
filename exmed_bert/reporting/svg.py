"""SVG of plots as a page holds them: no styles of their own, ids that are used, and points that name themselves."""

import re
from collections.abc import Sequence
from typing import NamedTuple
from xml.etree import ElementTree  # nosec: of what we have drawn ourselves

_REACH = 5  # radius of a named point, in the units of the drawing
_DIGITS = 1  # after the point, of places in the drawing
_INHERITED = {"fill", "fill-opacity", "stroke", "stroke-opacity", "stroke-width"}
_NUMBER = re.compile(r"-?\d+\.\d{2,}")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_NO_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


class NamedPoint(NamedTuple):
    """A place in a drawing, from its upper left corner, and what is there."""

    x: float
    y: float
    name: str


def page_svg(drawn: str, alternative: str, points: Sequence[NamedPoint], image: str = "") -> str:
    """Return a drawing for a page, whose style sheet sets fonts and may replace colors.

    Styles become attributes, which a content security policy without inline styles allows. What is not drawn goes:
    declarations, descriptions, ids that nothing refers to, decimals.

    Args:
        drawn: SVG as matplotlib writes it, with text as text.
        alternative: what stands for the drawing where it cannot be seen.
        points: each shown by its name under the pointer, natively or by the page's script.
        image: data URL of a picture of the same that takes the place of what is drawn; "" for none.
    """
    root = ElementTree.fromstring(_plain_text(drawn))  # nosec
    box = root.attrib["viewBox"]
    for element in list(root.iter()):
        for child in list(element):
            if child.tag.endswith(("metadata", "}style")):
                element.remove(child)
    for element in root.iter():
        _plain(element)
    for element in root.iter("g"):
        _share(element)
    root.attrib = {"viewBox": box, "role": "img", "aria-label": alternative, "stroke-linejoin": "round"}
    if image:
        _, _, width, height = box.split()
        root[:] = [ElementTree.Element("image", {"href": image, "width": width, "height": height})]
    used = {reference for element in root.iter() for reference in _references(element)}
    for element in root.iter():
        if element.attrib.get("id") not in used:
            element.attrib.pop("id", None)
    if points:
        group = ElementTree.SubElement(root, "g", {"class": "points"})
        for point in points:
            place = {"cx": f"{point.x:.{_DIGITS}f}", "cy": f"{point.y:.{_DIGITS}f}", "r": str(_REACH)}
            circle = ElementTree.SubElement(group, "circle", place)
            ElementTree.SubElement(circle, "title").text = _plain_text(point.name)
    return ElementTree.tostring(root, encoding="unicode")


def _plain_text(text: str) -> str:
    """Return a text without the control characters that XML forbids, which names of codes may hold."""
    return _NO_XML.sub("�", text)


def _plain(element: ElementTree.Element) -> None:
    """Take namespaces, styles and needless space out of an element."""
    element.tag = element.tag.rpartition("}")[2]
    attributes = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
    for declaration in filter(None, attributes.pop("style", "").split(";")):
        name, _, value = declaration.partition(":")
        if name.strip() != "font-family":
            attributes[name.strip()] = value.strip()
    for name in {"d", "x", "y", "transform"} & attributes.keys():
        attributes[name] = _NUMBER.sub(lambda found: f"{float(found[0]):.{_DIGITS + 1}f}", attributes[name])
    if "d" in attributes:
        attributes["d"] = " ".join(attributes["d"].split())
    element.attrib = attributes
    element.tail = None
    if element.text and not element.text.strip():
        element.text = None


def _share(group: ElementTree.Element) -> None:
    """Move what all markers of a group have in common to the group: a map has thousands of them."""
    markers = list(group)
    if len(markers) < 2 or any(marker.tag != "use" for marker in markers):
        return
    common = set.intersection(*(set(marker.attrib.items()) for marker in markers))
    for name, value in sorted(common):
        if name in _INHERITED:
            group.attrib[name] = value
            for marker in markers:
                del marker.attrib[name]


def _references(element: ElementTree.Element) -> list[str]:
    """Return the ids that the attributes of an element refer to."""
    found = [name for value in element.attrib.values() for name in _REFERENCE.findall(value)]
    link = element.attrib.get("href", "")
    return [*found, link[1:]] if link.startswith("#") else found
