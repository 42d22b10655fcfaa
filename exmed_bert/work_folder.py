"""The folder of work that is under way: it stays where a run is killed, and the next run of the same goes on there."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from exmed_bert.cluster import WorkersLost
from exmed_bert.files import make_folder
from exmed_bert.staging import remove_abandoned, write_json

_SAID = "identity.json"


@contextmanager
def work_folder(folder: Path, identity: Any, done: str) -> Iterator[Path]:
    """Yield a folder for what is made on the way: that of a run of the same that was killed, or a new one.

    It is removed with the end of the block; where that is interrupted, or workers are lost, what is done stays.

    Args:
        folder: absolute, hidden, beside what is made.
        identity: JSON of all that decides what is made; the folder of another identity is emptied.
        done: pattern of the files that say what is done; without any of them nothing is worth keeping.

    Raises:
        InputError: the folder cannot be made or written.
    """
    said = folder / _SAID
    try:
        same = json.loads(said.read_text(encoding="utf-8")) == identity
    except (OSError, ValueError):
        same = False
    try:
        if same:
            remove_abandoned(folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)
            make_folder(folder)
            write_json(said, identity)
        yield folder
    except BaseException as error:
        if not (isinstance(error, KeyboardInterrupt | WorkersLost) and any(folder.glob(done))):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
