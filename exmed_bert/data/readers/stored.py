"""The files of a source that are in object stores: outlines to recognize them by, and copies while they are read."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from exmed_bert.console import InputError
from exmed_bert.data.formats import FORMATS, POPULATION_META
from exmed_bert.stores import StoredFile, StorePath, fetch, fetch_outlines, listing

META = ".meta.json"  # what our generator writes beside its file
_WHOLE = re.compile(
    rf"(/metadata/[^/]*\.json|{re.escape(META)})$"
)  # what has to be known whole before patients are read


@dataclass(frozen=True)
class Stored:
    """Files of a source that are in stores. On this machine stand their outlines: of their size, and full of holes.

    Attributes:
        root: folder of the outlines, in which each stands at the `StorePath.inner` of its URL.
        given: the places as given, for people; a place on this machine may be among them.
        files: by path of the outline.
        digests: of the content, by path of the outline; known once the file has been read.
    """

    root: Path
    given: tuple[Path | StorePath, ...]
    files: dict[Path, StoredFile] = field(default_factory=dict)
    digests: dict[Path, str] = field(default_factory=dict)

    def of(self, files: Iterable[Path]) -> "Stored":
        """Return the same for some of the files, with what the generator says beside them."""
        kept = [file for file in files if file in self.files]
        return Stored(self.root, self.given, {file: self.files[file] for file in (*kept, *self.metas)})

    @property
    def metas(self) -> list[Path]:
        """The outlines of the generator's meta files."""
        return [file for file in self.files if file.name.endswith(META)]

    def find(self, place: StorePath) -> tuple[list[Path], list[Path]]:
        """Add the files at a place, below it, or that match a pattern; the outlines are made by `outline`.

        Returns:
            What stands for the place: an outline, a folder of them, or several where it is a pattern; and the outlines
            of all files.
        """
        found = {self.root / file.path.inner: file for file in listing(place)}
        single = [outline for outline, file in found.items() if file.path == place or _is_pattern(place)]
        self.files.update(found)
        beside = {found[outline].path.with_name(POPULATION_META) for outline in single}
        if len(single) == 1:
            beside |= _metas(found[single[0]].path)
        self.files.update({self.root / file.path.inner: file for meta in beside for file in listing(meta)})
        return single or [self.root / place.inner], sorted(found)

    def outline(self) -> None:
        """Make the outlines of all files."""
        fetch_outlines(self.files, lambda file: bool(_WHOLE.search(str(file.path))))

    def copy(self, file: Path, folder: Path) -> Path:
        """Copy a file of a store to the place in ``folder`` that its outline has in `root`; others stay where they are.

        Raises:
            InputError: it cannot be read, or has changed.
        """
        target = self.moved(file, folder)
        if file in self.files:
            fetch(self.files[file], target)
        return target

    def moved(self, path: Path, folder: Path) -> Path:
        """Return the place in ``folder`` of what has an outline, or is a folder of outlines."""
        return folder / path.relative_to(self.root) if path.is_relative_to(self.root) else path


@contextmanager
def called_by_url(folder: Path) -> Iterator[None]:
    """Let errors name a file in a store where they name its outline or copy in ``folder``."""
    try:
        yield
    except InputError as error:
        place = re.compile(re.escape(f"{folder.as_posix()}/") + "([a-z0-9+.-]+)/")
        raise type(error)(place.sub(r"\1://", str(error))) from None


def _metas(path: StorePath) -> set[StorePath]:
    """Return what our generator may have written beside a file."""
    return {path.with_name(path.name.removesuffix(end) + META) for end in FORMATS if path.name.endswith(end)}


def _is_pattern(place: StorePath) -> bool:
    return any(sign in str(place) for sign in "*?[")
