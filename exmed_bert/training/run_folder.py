"""The folders of a run, and what they hold: nothing yet, this run unfinished or finished, or another to archive.

A run is identified by what decides its weights: settings and data. How long it trains, where it writes and how often
it reports do not belong to that, so a run can be prolonged or moved.
"""

import json
import os
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from exmed_bert import console
from exmed_bert.console import InputError
from exmed_bert.files import fingerprint, make_folder
from exmed_bert.locks import held
from exmed_bert.settings import StepSettings
from exmed_bert.staging import remove_abandoned, write_json
from exmed_bert.swap import settle
from exmed_bert.training import checkpoints

MANIFEST, SETTINGS, METRICS = "run.json", "settings.json", "eval_results.txt"

# What a run writes; a folder that holds any of these without our manifest belongs to something else.
_MODEL_FILES = ("pytorch_model.bin", "model.safetensors", "config.json", "vocab.json", "output.log")
_DATA_FILES = (METRICS, "logs", "mlruns.db")


@dataclass
class RunFolder:
    """The two folders of one run.

    Attributes:
        model_dir: model, checkpoints, manifest.
        data_dir: metrics, TensorBoard, MLflow.
        state: ``new`` starts at step 0, ``resumed`` goes on, ``finished`` has nothing left to do.
        checkpoint: where a resumed run goes on from; None from the start.
        manifest: identity and what the run remembers (its MLflow run, for one).
    """

    model_dir: Path
    data_dir: Path
    state: Literal["new", "resumed", "finished"]
    checkpoint: Path | None
    manifest: dict[str, Any]

    @property
    def first_step(self) -> int:
        """Optimizer steps that an earlier process has done."""
        return checkpoints.step_of(self.checkpoint) if self.checkpoint else 0

    @property
    def has_results(self) -> bool:
        """Whether the run was finished before, perhaps after fewer steps: until it ends, what stands there is left."""
        return "finished_steps" in self.manifest

    def remember(self, folder: Path | None = None, **facts: Any) -> None:
        """Add facts to the manifest, which is written to a folder that is put in place later, if one is given."""
        self.manifest.update(facts)
        write_json((folder or self.model_dir) / MANIFEST, self.manifest)

    def mlflow_key(self) -> str:
        """Return what marks the run in MLflow, the same one each time."""
        if "mlflow_key" not in self.manifest:
            self.remember(mlflow_key=uuid.uuid4().hex)
        return str(self.manifest["mlflow_key"])


@contextmanager
def locked(folders: Sequence[Path], command: str) -> Iterator[None]:
    """Keep other commands out of a run's folders, which may be one, until the block ends; see `locks.held`."""
    with ExitStack() as stack:
        for folder in {os.path.realpath(folder): folder for folder in folders}.values():
            stack.enter_context(held(folder, command))
        yield


def run_identity(
    settings: StepSettings, exclude: Collection[str], files: Mapping[str, Sequence[Path]], chosen: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what decides the weights of a run, as plain JSON values: settings, digests of files, what was chosen.

    Args:
        settings: of the run.
        exclude: names of those settings that leave the weights alone, or name files.
        files: by name, the files whose content counts; where they lie does not.
        chosen: what was not given, and follows from the data or the machine.
    """
    digests = {name: [fingerprint(path) for path in paths] for name, paths in files.items()}
    return settings.model_dump(mode="json", exclude=set(exclude)) | digests | dict(chosen)


def open_run(
    model_dir: Path, data_dir: Path, identity: dict[str, Any], total_steps: int, overwrite: bool, may_write: bool = True
) -> RunFolder:
    """Find out what the folders hold and make them ready for this run.

    Args:
        model_dir, data_dir: the run's two folders; they may be the same.
        identity: plain JSON values that decide the weights.
        total_steps: optimizer steps of the whole run.
        overwrite: archive this very run too, and start anew.
        may_write: False on all but the first of several processes: look, change nothing.

    Raises:
        InputError: a folder cannot be made, written or moved.
    """
    if may_write:
        for folder in (model_dir, data_dir):
            _tidy(folder)
    manifest = _read_manifest(model_dir)
    same = manifest is not None and manifest["identity"] == identity
    done = manifest.get("finished_steps", 0) if manifest else 0
    reached = max((checkpoints.step_of(folder) for folder in checkpoints.checkpoints(model_dir)), default=0)
    if manifest and same and not overwrite and max(done, reached) <= total_steps:
        if done == total_steps:
            return RunFolder(model_dir, data_dir, "finished", None, manifest)
        make_folder(data_dir)
        checkpoint, damaged = checkpoints.last_whole(model_dir)
        if may_write:
            for line in damaged:
                console.warn(line)
        return RunFolder(model_dir, data_dir, "resumed" if checkpoint else "new", checkpoint, manifest)

    fresh = RunFolder(model_dir, data_dir, "new", None, {"identity": identity})
    if may_write:
        reason = "starting anew as asked" if same and overwrite else "it holds another run"
        if manifest is None and (model_dir / MANIFEST).exists():
            reason = f"its {MANIFEST} is damaged"
        _archive([(model_dir, _MODEL_FILES), (data_dir, _DATA_FILES)], reason)
        make_folder(model_dir)
        make_folder(data_dir)
        fresh.remember()
    return fresh


def _tidy(folder: Path) -> None:
    """Finish what a killed process has begun to move into place, and remove what it was making."""
    if folder.is_dir():
        settle(folder)
        remove_abandoned(folder)
        checkpoints.remove_leftovers(folder)


def _read_manifest(model_dir: Path) -> dict[str, Any] | None:
    """Return what run.json says, None where it is missing or damaged."""
    try:
        content = json.loads((model_dir / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    whole = isinstance(content, dict) and "identity" in content and type(content.get("finished_steps", 0)) is int
    return content if whole else None


def _archive(folders: list[tuple[Path, tuple[str, ...]]], reason: str) -> None:
    """Rename folders that hold results, all under the same date and time."""
    stamp = f"{datetime.now():%Y%m%d-%H%M%S}"
    for folder, results in folders:
        if folder.is_symlink() or not folder.is_dir():
            continue
        holds_results = any((folder / name).exists() for name in (MANIFEST, *results))
        if not holds_results and not checkpoints.checkpoints(folder):
            continue
        archive = folder.with_name(f"{folder.name}.{stamp}")
        try:
            os.rename(folder, archive)
        except OSError as error:
            raise InputError(f"{folder}: cannot be archived as {archive.name}: {error.strerror}") from error
        console.echo(f"{folder} is archived as {archive} ({reason})")
