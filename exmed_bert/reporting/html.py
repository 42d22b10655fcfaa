"""HTML of a report: one page that needs no network, no script and no other file."""

import base64
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from exmed_bert.reporting.content import Report


def html(report: Report) -> str:
    """Return the page. Everything that it shows is escaped, and it may load nothing but what it holds."""
    return _environment().get_template("page.html.j2").render(report=report)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("exmed_bert.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["base64"] = lambda content: base64.b64encode(content).decode()
    return environment
