"""Reading YAML in which each key stands once, and nothing refers to something else."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from exmed_bert.console import InputError, shown
from exmed_bert.files import existing_file


def read_yaml(path: Path) -> Any:
    """Return what a YAML file holds.

    Raises:
        InputError: it is missing or no YAML, a key stands twice, or a value is impossible, such as the day 2025-02-30.
    """
    try:
        return yaml.load(existing_file(path).read_text(encoding="utf-8"), _Loader)  # nosec: a SafeLoader
    except yaml.MarkedYAMLError as error:
        where = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
        raise InputError(f"{path}: {where}is not YAML: {error.problem or error.context}") from None
    except RecursionError:
        raise InputError(f"{path}: is nested too deeply, expected sections and keys") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # a day or a number that is none
        raise InputError(f"{path}: is not YAML: {error}") from None


class _Loader(yaml.SafeLoader):
    """Builds nothing but plain values; refuses what would be read otherwise than it looks."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.composer.ComposerError(
                None, None, f"*{event.anchor} refers to another value, expected the value itself", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[str, yaml.Node] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "expected keys that are text", key.start_mark)
            if key.value in seen:
                first = seen[key.value].start_mark.line + 1
                raise yaml.constructor.ConstructorError(
                    None,
                    None,
                    f"the key {shown(key.value)} stands in line {first} too, expected it once",
                    key.start_mark,
                )
            seen[key.value] = key
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError) as error:
            raise yaml.constructor.ConstructorError(
                None, None, f"{shown(node.value)} is none: {error}", node.start_mark
            ) from None
