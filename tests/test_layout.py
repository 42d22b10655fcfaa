"""How the package is built: imports run one way, and what a code system is called stands in few modules."""

import ast
import re
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "exmed_bert"

FLOORS = (  # a unit imports from its own floor and from those before it
    {
        "codes",
        "settings",
        "staging",
        "swap",
        "config",
        "console",
        "contents",
        "files",
        "garbage",
        "locks",
        "reporting",
        "cluster",
        "parallel",
        "processes",
        "startup",
        "stores",
        "cli",
        "work_folder",
        "yaml_file",
    },
    {"reference", "data"},
    {"cohorts", "synthetic", "clinvec"},
    {"models"},
    {"evaluation"},
    {"training"},
    {"finetuning", "analysis", "sharing"},
    {"embedding"},
    {"interface"},
    {"commands", "__main__"},
)

# What still has to go: the test fails for an entry that is no longer needed, so that the lists can only shrink.
UPWARD: set[tuple[str, str]] = set()
CYCLES: set[frozenset[str]] = set()

SYSTEM_WORDS = re.compile(r"\b(icd|atc|diagnoses|drugs)\b")
AT_HOME = ("codes", "synthetic/", "data/readers/", "data/translation/", "settings/")
MOST_NAMING_SYSTEMS = 5


def module_name(path: Path) -> str:
    """Return the name under which a file of the package is imported."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


SOURCES = {module_name(path): path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}


def imported(source: str, sources: Iterable[str]) -> Iterator[str]:
    """Yield the modules of ``sources`` that a module imports, wherever in it: in functions and for types alone too."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole path"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in sources else str(node.module) for name in whole]
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            names = [ast.literal_eval(argument) for argument in node.args if isinstance(argument, ast.Constant)]
        yield from (name for name in names if name in sources)


IMPORTS = {name: set(imported(source, SOURCES)) for name, source in SOURCES.items()}


def unit(module: str) -> str:
    """Return the part of the package, a folder or a module at its top, that a module belongs to."""
    return module.split(".")[1] if "." in module else ""


def floor(module: str) -> int:
    """Return the floor of a module; the package itself lies below all."""
    return next((number for number, units in enumerate(FLOORS) if unit(module) in units), -1)


def cycles(graph: dict[str, set[str]]) -> set[frozenset[str]]:
    """Return cycles of a graph, one of those that share an edge; none exactly where there is none."""
    graph, found = {node: set(after) for node, after in graph.items()}, set()
    while True:
        try:
            list(TopologicalSorter(graph).static_order())
        except CycleError as error:
            nodes = error.args[1]
            found.add(frozenset(nodes))
            graph[nodes[1]].discard(nodes[0])
        else:
            return found


def test_every_part_has_a_floor() -> None:
    assert {unit(module) for module in SOURCES} - {""} <= set().union(*FLOORS)


def test_no_import_runs_upward() -> None:
    found = {(module, above) for module, needs in IMPORTS.items() for above in needs if floor(above) > floor(module)}
    assert found == UPWARD


def test_no_modules_import_each_other() -> None:
    assert cycles(IMPORTS) == CYCLES


def test_no_parts_import_each_other() -> None:
    parts: dict[str, set[str]] = {}
    for module, needs in IMPORTS.items():
        allowed = {name for name in needs if (module, name) not in UPWARD}
        parts.setdefault(unit(module), set()).update(set(map(unit, allowed)) - {unit(module)})
    assert cycles(parts) == set()


@pytest.mark.parametrize(
    "source",
    [
        "import exmed_bert.data.splits",
        "from exmed_bert.data import splits",
        "from exmed_bert.data.splits import split",
        "if TYPE_CHECKING:\n    from exmed_bert.data.splits import split",
        "def split():\n    from exmed_bert.data.splits import split",
        "importlib.import_module('exmed_bert.data.splits')",
    ],
)
def test_imports_are_seen_wherever_they_stand(source: str) -> None:
    known = {"exmed_bert.data", "exmed_bert.data.splits"}
    assert list(imported(source, known)) == ["exmed_bert.data.splits"]


def test_cycles_are_seen() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}) == {frozenset("abc")}
    assert cycles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == set()


def test_few_modules_name_a_code_system() -> None:
    """A code system is an entry of the registry; whoever names one outside needs a change for the next one."""
    texts = {path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    naming = sorted(path for path, text in texts.items() if SYSTEM_WORDS.search(text) and not path.startswith(AT_HOME))
    assert len(naming) <= MOST_NAMING_SYSTEMS, naming
