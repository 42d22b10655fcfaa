"""What all settings share: the types of fields, a section of config.yaml, and how options are spelled."""

from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path, PurePath
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf, PlainSerializer, field_validator

from exmed_bert import stores
from exmed_bert.stores import StorePath


def _checked(place: Callable[[str | Path], Any]) -> Callable[[Any], Any]:
    """Return a validator that applies a function to paths and leaves what is none to pydantic."""
    return lambda value: place(value) if isinstance(value, str | Path) else value


FilePath = Annotated[Path, Field(strict=False), BeforeValidator(_checked(stores.local))]
# What may also be in an object store.
Location = Annotated[
    Path | InstanceOf[StorePath], BeforeValidator(_checked(stores.location)), PlainSerializer(str, when_used="json")
]
Probability = Annotated[float, Field(ge=0, le=1)]


def _as_tuple(value: Any) -> Any:
    """Return a list as a tuple, and anything else as a tuple of its own."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _one_or_list(values: tuple[Any, ...]) -> Any:
    """Return what stands in config.yaml and settings.json: one value by itself, several as a list."""
    plain = [str(value) for value in values]
    return plain[0] if len(plain) == 1 else plain


# An option that may be repeated; in config.yaml one value, or a list of them.
FilePaths = Annotated[
    tuple[FilePath, ...], Field(strict=False, min_length=1), BeforeValidator(_as_tuple), PlainSerializer(_one_or_list)
]
Locations = Annotated[
    tuple[Location, ...], Field(strict=False, min_length=1), BeforeValidator(_as_tuple), PlainSerializer(_one_or_list)
]
Texts = Annotated[tuple[str, ...], Field(strict=False), BeforeValidator(_as_tuple)]
Days = Annotated[tuple[Annotated[date, Field(strict=False)], ...], Field(strict=False), BeforeValidator(_as_tuple)]


class StepSettings(BaseModel):
    """The settings of a step, a section of config.yaml.

    A field's ``json_schema_extra`` says what its type cannot: ``short``, a second spelling of its flag; ``file_only``,
    that it has no flag; ``formerly``, the names it had, which flags and files may still use.

    Attributes:
        section: its name in the file.
        shared: field to the key at the top of the file that feeds it, for what several steps have in common.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    section: ClassVar[str]
    shared: ClassVar[dict[str, str]] = {}

    @field_validator("*", mode="after")
    @classmethod
    def _of_64_bits(cls, value: Any) -> Any:
        """Refuse whole numbers that nothing behind the settings could hold."""
        if isinstance(value, int) and abs(value) >= 2**63:
            raise ValueError("expected a number of at most 64 bits")
        return value

    @classmethod
    def extra(cls, name: str) -> dict[str, Any]:
        """Return what ``json_schema_extra`` of a field says."""
        said = cls.model_fields[name].json_schema_extra
        return said if isinstance(said, dict) else {}

    def paths(self) -> Iterator[Path]:
        """Yield the paths on this machine that the settings name, of what is read and of what is written."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            yield from (one for one in (value if isinstance(value, tuple) else (value,)) if isinstance(one, Path))

    def with_absolute_paths(self) -> Self:
        """Return the same settings with paths that hold in any process."""
        paths: dict[str, Any] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, Path):
                paths[name] = value.absolute()
            elif isinstance(value, tuple) and any(isinstance(one, Path) for one in value):
                paths[name] = tuple(one.absolute() if isinstance(one, Path) else one for one in value)
        return self.model_copy(update=paths)

    @classmethod
    def former_names(cls) -> dict[str, str]:
        """Return the present name for each name that a field had."""
        return {old: name for name in cls.model_fields for old in cls.extra(name).get("formerly", ())}


REPORT_TO = (
    "Trackers beside TensorBoard and MLflow, separated by commas, where they are installed: wandb, comet_ml, neptune, "
    "clearml, dvclive, swanlab, trackio. They may use the network."
)


def listed(paths: tuple[PurePath, ...]) -> str:
    """Return paths as messages name them.

    >>> listed((Path("a.json"), Path("b.json")))
    'a.json, b.json'
    """
    return ", ".join(map(str, paths))


def flag(name: str, value: Any = None) -> str:
    """Return the command-line spelling of a field, of a switch the one that gives it this value.

    >>> flag("max_seq_length"), flag("plos", True), flag("plos", False)
    ('--max-seq-length', '--plos', '--no-plos')
    """
    return ("--no-" if value is False else "--") + name.replace("_", "-")
