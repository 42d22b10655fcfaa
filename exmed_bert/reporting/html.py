"""HTML of a report: one page that needs no network and no other file, and runs no script and no style but its own."""

import base64
import hashlib
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined

from exmed_bert.reporting.content import Caution, Report


def html(report: Report) -> str:
    """Return the page. Everything that it shows is escaped, and it may load nothing but what it holds."""
    style, script = _part("page.css"), _part("page.js")
    policy = f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}"
    policy += "; base-uri 'none'; form-action 'none'"  # which the default does not stand for
    page = _environment().get_template("page.html.j2")
    return page.render(report=report, style=style, script=script, policy=policy)


@cache
def _part(name: str) -> str:
    return files("exmed_bert.reporting").joinpath("templates", name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    """Return what a content security policy calls a script or a style by."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


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
    environment.tests["caution"] = lambda note: isinstance(note, Caution)
    environment.filters["base64"] = lambda content: base64.b64encode(content).decode()
    return environment
