"""Typer programs made from the settings classes, so that every flag, its type, limits and help stand in one place.

``--help`` shows the value that an option would have: that of config.yaml, which it names, or the default.
"""

import inspect
import types
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from pkgutil import resolve_name
from textwrap import dedent
from typing import Any, Literal, Union, get_args, get_origin

import typer
from typer.core import TyperCommand

import exmed_bert
from exmed_bert import startup
from exmed_bert.config import Resolved, resolve, section_of
from exmed_bert.console import InputError, one_line_errors
from exmed_bert.garbage import no_garbage_collection
from exmed_bert.settings import StepSettings, flag
from exmed_bert.startup import Command
from exmed_bert.swap import settle

# Plain help: rich panels cut long flags on narrow terminals and in logs.
_STYLE: dict[str, Any] = {"add_completion": False, "rich_markup_mode": None, "pretty_exceptions_enable": False}


def script(command: Command) -> typer.Typer:
    """Return the program of one command."""
    program = typer.Typer(**_STYLE)
    _add(program, command)
    return program


def console_command(commands: Iterable[Command]) -> typer.Typer:
    """Return the program that has each command as a sub-command."""
    program = typer.Typer(no_args_is_help=True, **_STYLE)

    version = typer.Option(False, "--version", is_eager=True, callback=_show_version, help="Show the version.")

    @program.callback(help="ExMed-BERT: pretrain BERT models on patients' medical codes, step by step.")
    def options(version: bool = version) -> None:
        pass

    for command in commands:
        _add(program, command)
    return program


def _add(program: typer.Typer, command: Command) -> None:
    """Give a program a command with one option for each field of its settings, besides --config and --debug."""
    cls: type[StepSettings] = resolve_name(command.settings)

    def run(config: Path | None, debug: bool, **options: Any) -> None:
        given = {name: value for name, value in options.items() if value not in (None, [])}
        with one_line_errors(debug):
            resolved = resolve(cls, given, config)
            for path in resolved.settings.paths():
                settle(path)
            with no_garbage_collection():  # looking for cycles takes a fifth of an import, and modules stay
                check = resolve_name(command.check)
            check(resolved.settings)
            with no_garbage_collection():
                step = resolve_name(command.run)
            step(resolved)

    parameters = [*_options(cls), _CONFIG, _DEBUG]
    run.__dict__["__signature__"] = inspect.Signature(parameters)
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    calls = {name: _Call(startup.called(name)) for name in startup.SCRIPTS}
    examples = dedent(command.examples).strip().format_map(calls)
    epilog = "\b\nExamples:\n" + "\n".join(f"  {line}" for line in examples.splitlines())
    help_class = type("_CommandOfStep", (_StepCommand,), {"step": cls})
    program.command(command.name, cls=help_class, help=command.summary, short_help=command.summary, epilog=epilog)(run)


class _Call(str):
    """How the user calls a command, and ``program``, the same for a launcher that brings its own Python."""

    @property
    def program(self) -> str:
        words = self.removeprefix("python ")
        return words if words != self else f"-m exmed_bert {self.split()[-1]}"


class _StepCommand(TyperCommand):
    """A command whose help shows what each option would be with the config.yaml that it would read."""

    step: type[StepSettings]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep the file that --config names: --help is answered before the options behind it are looked at."""
        ctx.meta[__name__] = _named_config(args)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write each option with its effective value, those of a section that the step includes apart."""
        resolved, note = _effective(self.step, ctx.meta.get(__name__))
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                name = str(parameter.name)
                shown = note if name == "config" else _value(resolved, name) if name in resolved.origin else ""
                section = section_of(self.step, name) if name in resolved.origin else self.step.section
                groups.setdefault(section, []).append((record[0], f"{record[1]} {shown}".rstrip()))
        for section, rows in groups.items():
            own = section == self.step.section
            with formatter.section("Options" if own else f"Options in section {section} of config.yaml"):
                formatter.write_dl(rows)


def _effective(cls: type[StepSettings], config: Path | None) -> tuple[Resolved[Any], str]:
    """Return the settings that a step has without options, and in brackets where they come from."""
    try:
        resolved = resolve(cls, {}, config)
    except (InputError, OSError) as error:
        return Resolved(cls(), dict.fromkeys(cls.model_fields, "default")), f"[the defaults are shown: {error}]"
    return resolved, "[none is here]" if resolved.config is None else f"[read: {resolved.config}]"


def _value(resolved: Resolved[Any], name: str) -> str:
    """Return the value of an option that is not given and where it comes from, in brackets; "" where there is none."""
    value, default = getattr(resolved.settings, name), type(resolved.settings).model_fields[name].default
    known = []
    if resolved.config is not None and value != default:
        known.append(f"{resolved.config.name}: {_spelled(value)}")
    if default not in (None, ()):
        known.append(f"default: {_spelled(default)}")
    return f"[{'; '.join(known)}]" if known else ""


def _spelled(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _named_config(arguments: Sequence[str]) -> Path | None:
    """Return the value of --config among arguments that are not parsed yet.

    >>> [str(_named_config(words.split())) for words in ("--help --config other.yaml", "--config=other.yaml", "--help")]
    ['other.yaml', 'other.yaml', 'None']
    """
    for argument, following in zip_longest(arguments, arguments[1:], fillvalue=""):
        name, _, value = argument.partition("=")
        if name == "--config":
            return Path(value or following)
    return None


def _options(cls: type[StepSettings]) -> list[inspect.Parameter]:
    """Return an option for each field, the step's own before those of a section that it includes; former names last."""
    names = sorted(cls.model_fields, key=lambda name: name not in cls.__annotations__)
    shown = [_option(cls, name, name) for name in names if not cls.extra(name).get("file_only")]
    return shown + [_option(cls, new, old, hidden=True) for old, new in cls.former_names().items()]


def _option(cls: type[StepSettings], field: str, name: str, hidden: bool = False) -> inspect.Parameter:
    """Return an optional parameter for a field, whose value is None when the option is not given."""
    annotation: Any = _plain(cls.model_fields[field].annotation)
    spellings = [flag(name)]
    if annotation is bool:
        spellings = [f"{flag(name)}/{flag(name, False)}"]
    if "short" in cls.extra(field) and not hidden:
        spellings.append(cls.extra(field)["short"])
    how: dict[str, Any] = {}
    if get_origin(annotation) is tuple:  # may be repeated
        is_path = _plain(get_args(annotation)[0]) is Path
        annotation, how = list[str], {"metavar": "<path>" if is_path else "<str>"}
    elif get_origin(annotation) is Literal:
        annotation, how = str, {"metavar": "|".join(get_args(annotation))}
    elif annotation is Path:  # that may be a URL, which stays as it is written
        annotation, how = str, {"metavar": "<path>"}
    elif annotation not in (int, float, bool):
        annotation = str
    return _parameter(name, annotation, *spellings, help=cls.model_fields[field].description, hidden=hidden, **how)


def _parameter(name: str, annotation: Any, *spellings: str, **how: Any) -> inspect.Parameter:
    default = typer.Option(None, *spellings, show_default=False, **how)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation | None)


def _plain(annotation: Any) -> Any:
    """Strip ``Annotated`` from a type, and all but the first of alternatives: ``| None``, or a URL for a path."""
    while hasattr(annotation, "__metadata__") or get_origin(annotation) in (Union, types.UnionType):
        annotation = next(part for part in get_args(annotation) if part is not type(None))
    return annotation


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"exmed-bert {exmed_bert.__version__}")
        raise typer.Exit


_CONFIG = _parameter(
    "config", Path, "--config", help="Settings file; not given: config.yaml in the current folder, else the project's."
)
_DEBUG = inspect.Parameter(
    "debug",
    inspect.Parameter.KEYWORD_ONLY,
    default=typer.Option(False, "--debug", help="Show the traceback of an error."),
    annotation=bool,
)
