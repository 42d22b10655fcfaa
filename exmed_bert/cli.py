"""Typer commands made from the settings classes, so that every flag, its type, limits and help stand in one place."""

import inspect
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

import typer

from exmed_bert.config import Resolved, Section, flag, resolve
from exmed_bert.console import one_line_errors

S = TypeVar("S", bound=Section)


def command(cls: type[S], work: Callable[[Resolved[S]], None], summary: str, examples: str) -> typer.Typer:
    """Return a Typer program with one option for each field of ``cls`` besides ``--config`` and ``--debug``.

    Args:
        cls: the step's settings class.
        work: called with the resolved settings; its expected errors become one line.
        summary: what the program does, the first thing that ``--help`` shows.
        examples: commands that a reader can copy, the last thing that ``--help`` shows.
    """

    def run(config: Path | None, debug: bool, **options: Any) -> None:
        given = {name: value for name, value in options.items() if value is not None}
        with one_line_errors(debug):
            work(resolve(cls, given, config))

    # The step's own options first, those of a section it includes after them.
    fields = sorted(cls.model_fields.items(), key=lambda item: item[0] not in cls.__annotations__)
    parameters = [_option(name, field) for name, field in fields if not _extra(field).get("file_only")]
    parameters.append(
        _parameter(
            "config", Path, "--config", help_text="Settings file.", default="config.yaml in the project's folder"
        )
    )
    debug_option = typer.Option(False, "--debug", help="Show the traceback of an error.")
    parameters.append(inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=debug_option, annotation=bool))
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}

    # Plain help: rich panels cut long flags on narrow terminals and in logs.
    program = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    example_block = "\b\nExamples:\n" + "\n".join(f"  {line}" for line in examples.strip().splitlines())
    program.command(help=summary, epilog=example_block)(run)
    return program


def _option(name: str, field: Any) -> inspect.Parameter:
    spellings = [flag(name)]
    annotation = _without_none(field.annotation)
    if annotation is bool:
        spellings = [f"{flag(name)}/--no-{flag(name)[2:]}"]
    if "short" in _extra(field):
        spellings.append(_extra(field)["short"])
    if get_origin(annotation) is None and annotation not in (int, float, bool, Path):
        annotation = str
    shown = None if field.default is None else str(field.default).lower() if annotation is bool else field.default
    return _parameter(name, annotation, *spellings, help_text=field.description, default=shown)


def _extra(field: Any) -> dict[str, Any]:
    """Return what a field says of its option: ``short``, a second spelling; ``file_only``, it has none."""
    return field.json_schema_extra or {}


def _parameter(name: str, annotation: Any, *spellings: str, help_text: str, default: Any = None) -> inspect.Parameter:
    """Return an optional parameter whose value is None when the option is not given."""
    text = help_text if default is None else f"{help_text} [default: {default}]"
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=typer.Option(None, *spellings, help=text, show_default=False),
        annotation=annotation | None,
    )


def _without_none(annotation: Any) -> Any:
    """Strip ``| None`` and ``Annotated`` from a type."""
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(part for part in get_args(annotation) if part is not type(None))
    return get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation
