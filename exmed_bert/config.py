"""config.yaml, and how settings come about: what the command line gives wins over the file, the file over the defaults.

The file is read and checked as a whole, so that a wrong key is noticed at the first step.
"""

import difflib
import importlib.metadata
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from exmed_bert import console, startup
from exmed_bert.console import InputError, OptionError, shown
from exmed_bert.settings import SECTIONS, ConvertSettings, StepSettings, flag
from exmed_bert.staging import write_json
from exmed_bert.yaml_file import read_yaml

PACKAGE = Path(__file__).resolve().parent
CONFIG = "config.yaml"

_SHARED_OWNER = ConvertSettings  # the class whose fields give the shared keys their type and limits

S = TypeVar("S", bound=StepSettings)


@dataclass(frozen=True)
class Resolved(Generic[S]):
    """A step's settings and where they come from.

    Attributes:
        settings: validated.
        origin: for each field ``flag``, ``file`` or ``default``.
        config: the config.yaml that was read, None without one.
    """

    settings: S
    origin: dict[str, str]
    config: Path | None = None

    @property
    def source(self) -> str:
        """What the settings that are not given as options come from, in a line."""
        return "settings: no config.yaml" if self.config is None else f"settings: {self.config.resolve()}"

    def save(self, path: Path, **facts: Any) -> None:
        """Write settings, their origin, seed, further facts and the versions of Python and packages as JSON."""
        names = ("torch", "transformers", "accelerate", "numpy", "scikit-learn", "mlflow", "pydantic")
        write_json(
            path,
            {
                "step": self.settings.section,
                "settings": self.settings.model_dump(mode="json"),
                "seed": getattr(self.settings, "seed", None),
                "config": None if self.config is None else str(self.config.resolve()),
                "origin": self.origin,
                **facts,
                "versions": {
                    "python": platform.python_version(),
                    "exmed_bert": importlib.import_module("exmed_bert").__version__,
                    **{name: _version(name) for name in names},
                },
            },
        )


@dataclass(frozen=True)
class ConfigFile:
    """A config.yaml that has been read and checked.

    Attributes:
        path: as given.
        shared: the keys at its top.
        sections: the keys of each section, by their present names.
        renamed: section, former and present name of each key that still has its former one.
    """

    path: Path
    shared: dict[str, Any]
    sections: dict[str, dict[str, Any]]
    renamed: list[tuple[str, str, str]]

    def values(self, cls: type[StepSettings]) -> dict[str, Any]:
        """Return the values that a step takes from the file, by field name."""
        values = {name: self.shared[key] for name, key in cls.shared.items() if key in self.shared}
        for name in cls.model_fields:
            section = self.sections.get(section_of(cls, name), {})
            if name in section:
                values[name] = section[name]
        return values


def resolve(cls: type[S], given: dict[str, Any], config: Path | None = None) -> Resolved[S]:
    """Combine the command line (``given``), config.yaml and the defaults into validated settings.

    Args:
        cls: the step's settings class.
        given: field name, a former one included, to value; only what stood on the command line.
        config: the file; None takes what `default_config` finds.

    Raises:
        InputError: the file has an unknown key, a wrong type or an impossible value.
        OptionError: the same for a command-line option.
    """
    given, renamed = _present_names(cls, given)
    for old, new in renamed:
        console.warn(f"{flag(old, given[new])} is now called {flag(new, given[new])}")
    path = config or default_config()
    in_file: dict[str, Any] = {}
    if path is not None:
        file = read_config(path)
        in_file = file.values(cls)
        for section, old, new in file.renamed:
            if new in in_file and section_of(cls, new) == section:
                console.warn(f"{path}: {section}.{old} is now called {new}")
    try:
        settings = cls(**(in_file | given))
    except ValidationError as error:
        name, problem = _first_problem(error)
        if name in given:
            raise OptionError(f"{flag(name)}: {problem}") from None
        raise InputError(f"{path}: {cls.shared.get(name, f'{section_of(cls, name)}.{name}')}: {problem}") from None
    origin = {name: "flag" if name in given else "file" if name in in_file else "default" for name in cls.model_fields}
    return Resolved(settings, origin, path)


def default_config() -> Path | None:
    """Return the config.yaml that is read when none is named, None where there is none.

    That of the current folder, else that of the checkout in which the package lies beside the scripts.
    """
    if Path(CONFIG).is_file():
        return Path(CONFIG)
    of_checkout = PACKAGE.parent / CONFIG
    return of_checkout if startup.in_checkout() and of_checkout.is_file() else None


def read_config(path: Path) -> ConfigFile:
    """Read and check the whole file, the sections of other steps included.

    Raises:
        InputError: it is missing or no YAML, has an unknown key, a wrong type or an impossible value.
    """
    content = read_yaml(path)
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected sections and keys, got {type(content).__name__}")

    sections = {section.section: section for section in SECTIONS}
    shared_keys = {key for section in SECTIONS for key in section.shared.values()}
    file = ConfigFile(path, {}, {}, [])
    for key, value in content.items():
        _refuse_unknown(path, "", key, [*shared_keys, *sections])
        if value is None:  # a key without a value says as little as no key
            continue
        if key in shared_keys:
            _check_value(path, key, _SHARED_OWNER, key, value)
            file.shared[key] = value
            continue
        if not isinstance(value, dict):
            raise InputError(f"{path}: {key}: expected keys and values, got {shown(value)}")
        cls = sections[key]
        own, renamed = _present_names(cls, value, f"{path}: {key}.")
        allowed = [name for name in cls.model_fields if section_of(cls, name) == key and name not in cls.shared]
        for name, field_value in own.items():
            if name in cls.shared:
                raise InputError(f"{path}: {key}.{name}: stands once, as '{cls.shared[name]}' at the top of the file")
            _refuse_unknown(path, f"{key}.", name, allowed)
            _check_value(path, f"{key}.{name}", cls, name, field_value)
        file.sections[key] = own
        file.renamed.extend((key, old, new) for old, new in renamed)
    return file


def _present_names(
    cls: type[StepSettings], values: dict[str, Any], where: str = ""
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Return values under their fields' present names, and former and present name of those that had another.

    Raises:
        InputError: one value has both names.
    """
    former = cls.former_names()
    present: dict[str, Any] = {}
    renamed = []
    for name, value in values.items():
        new = former.get(name, name)
        if new != name:
            renamed.append((name, new))
        if new in present or (new != name and new in values):
            if where:
                raise InputError(f"{where}{name}: is now called {new}, which stands there too")
            raise OptionError(f"{flag(name, value)} is now called {flag(new, value)}, and both are given")
        present[new] = value
    return present, renamed


def section_of(cls: type[StepSettings], field: str) -> str:
    """Return the section that owns a field: the most basic class that declares it."""
    bases = (base for base in reversed(cls.__mro__) if issubclass(base, StepSettings))
    return next(base.section for base in bases if field in base.model_fields)


def _refuse_unknown(path: Path, prefix: str, key: Any, allowed: list[str]) -> None:
    if key in allowed:
        return
    close = difflib.get_close_matches(str(key), allowed, n=1)
    hint = f"did you mean '{close[0]}'?" if close else "allowed: " + ", ".join(sorted(allowed))
    raise InputError(f"{path}: {prefix}{key}: unknown key; {hint}")


def _check_value(path: Path, where: str, cls: type[StepSettings], name: str, value: Any) -> None:
    try:
        cls(**{name: value})
    except ValidationError as error:
        raise InputError(f"{path}: {where}: {_first_problem(error)[1]}") from None


def _first_problem(error: ValidationError) -> tuple[str, str]:
    problem = error.errors()[0]
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ").replace("should be", "must be", 1)
    if problem["type"].startswith("date"):
        message = "expected a day as YYYY-MM-DD"
    return str(problem["loc"][0]), f"{shown(problem['input'])} is not allowed, {message}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
