"""Docstrings for the site, an extension of griffe: examples of doctest are shown as code."""

import re
from typing import Any

from griffe import Extension, Object

_EXAMPLE = re.compile(r"(?m)^( *)>>> .*(?:\n(?!\s*$).*)*")


class Examples(Extension):
    """Puts fences around the examples of docstrings."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        """Change the docstring of an object when it is read."""
        if obj.docstring is not None:
            obj.docstring.value = _EXAMPLE.sub(r"\1```pycon\n\g<0>\n\1```", obj.docstring.value)
