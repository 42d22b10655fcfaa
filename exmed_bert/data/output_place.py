"""Where a conversion writes: on this machine at once, in an object store by way of a folder here."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath

from exmed_bert import stores
from exmed_bert.console import InputError
from exmed_bert.data.formats import MANIFEST
from exmed_bert.data.shards import is_dataset
from exmed_bert.files import digest
from exmed_bert.locks import held
from exmed_bert.startup import called
from exmed_bert.stores import StorePath


@dataclass(frozen=True)
class Place:
    """Where a conversion writes.

    Attributes:
        output: base path on this machine, to write to.
        target: what --output says.
        datasets: names of the datasets.
    """

    output: Path
    target: Path | StorePath
    datasets: Sequence[str]

    def publish(self) -> None:
        """Copy what was written to the store; it is there already where that is this machine.

        Raises:
            InputError: the store refuses; what was written stays on this machine.
        """
        if isinstance(self.target, StorePath):
            try:
                stores.publish(self.output.parent, self.target.parent, self.datasets, last=MANIFEST)
            except InputError as error:
                raise InputError(f"{error}; what is to be copied there is in {self.output.parent}") from None


@contextmanager
def place_of(target: Path | StorePath, datasets: Sequence[PurePath]) -> Iterator[Place]:
    """Yield where to write to, so that what is needed is at ``target`` once it has been published.

    For a store that is a folder in the current one. It is removed with the end of the block, unless a conversion was
    interrupted there, which goes on with it, or the store refused what it holds.

    Args:
        target: base path of the datasets.
        datasets: their paths.

    Raises:
        InputError: something else than a dataset stands in the store where one is to be written, or another process is
            writing there.
    """
    names = [path.name for path in datasets]
    if not isinstance(target, StorePath):
        with held(target.with_suffix("") if target.suffix == ".pt" else target, called("convert")):
            yield Place(target, target, names)
        return
    for path in datasets:
        there = stores.names_below(target.with_name(path.name))
        if there - {""} and not is_dataset(there - {""}):
            raise InputError(f"{path}: is a folder of something else, expected a dataset to replace, or nothing")
    folder = Path(f".{target.name}-{digest(str(target).encode())[:8]}")
    with held(folder, called("convert")):
        for path in [path for path in folder.glob("*") if not path.name.startswith(".")]:  # refused by a store before
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        place = Place(folder / target.name, target, names)
        try:
            yield place
        except BaseException:
            if not _holds_work(folder):
                shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)


def _holds_work(folder: Path) -> bool:
    """Tell whether a conversion goes on with a folder, or it holds datasets."""
    return folder.is_dir() and any(folder.iterdir())
