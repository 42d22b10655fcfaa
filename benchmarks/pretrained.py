"""What the benchmarks of fine-tuning share: patients, a model pretrained on some of them, endpoints, test patients."""

import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from common import generate, run_quietly, script
from joblib import Parallel, delayed

from exmed_bert.codes import ICD10CM
from exmed_bert.cohorts.cohort import subset
from exmed_bert.cohorts.labeled import TEST, TRAIN, VALIDATION, LabeledPatients
from exmed_bert.data.patient_input import read_patients
from exmed_bert.data.randomness import hash_patient_ids, uniform
from exmed_bert.reference import tables

SEED = 42
MOST_FREQUENT, LEAST_EVENTS = 40, 100  # chronic codes that may be endpoints; of their test patients with the outcome
MOST_TESTED = 20_000
TRAINED_ON = 1 / 3  # of the patients
MAX_LENGTH = 80
SMALL = {  # options of a model that learns enough of synthetic patients
    "train-batch-size": 64,
    "hidden-size": 64,
    "num-hidden-layers": 3,
    "num-attention-heads": 4,
    "learning-rate": 0.003,
}
MODEL = SMALL | {"forecast-prob": 0.8, "forecast-weight": 1}
T = TypeVar("T")

_HASHED = 17  # a stream of draws apart from those of splits and subsets


def pretrain(
    folder: Path,
    patients: int,
    epochs: int,
    trained_on: float = TRAINED_ON,
    seed: int = SEED,
    options: Sequence[str] = (),
) -> Path:
    """Make patients and model, unless they are there; return the folder of the model.

    ``trained_on`` is the share of the patients for pretraining; ``seed`` and ``options`` are the generator's.
    """
    model = folder / "model"
    if (model / "pretraining.json").is_file():
        return model
    people = generate(patients_of(folder), patients, seed, options)
    data = folder / "data.pt"
    conversion = ("--input", people, "--output", data, "--max-length", MAX_LENGTH, "--train-ratio", f"{trained_on:.4f}")
    run_quietly(script("convert_synthetic_to_dataset.py", *conversion))
    flags = MODEL | {"epochs": epochs, "eval-steps": 2000, "save-steps": 2000, "eval-max-patients": 2000}
    flags |= {"training-data": folder / "data_train.pt", "validation-data": folder / "data_val.pt"}
    flags |= {"output-dir": model, "output-data-dir": folder / "reports"}
    arguments = [part for name, value in flags.items() for part in (f"--{name}", value)]
    subprocess.run(script("pretrain-exmed-bert-clinvec.py", *arguments), check=True)
    return model


def patients_of(folder: Path) -> Path:
    """Return the file of patients."""
    return folder / "patients.parquet"


def frequent(path: Path, number: int) -> list[str]:
    """Return the chronic codes that most patients have, in an order by a hash of the code."""
    diagnoses = tables.load().diagnoses
    chronic = {code for code, kind in zip(diagnoses.codes, diagnoses.kinds, strict=True) if kind == "chronic"}
    found: Counter[str] = Counter()
    for patients in read_patients(path):
        events = patients.events.of_system(ICD10CM)
        codes = np.unique(np.stack((events.patients(), events.codes)), axis=1)[1]  # each code of a patient once
        found.update(
            {events.table[i][1]: int(n) for i, n in enumerate(np.bincount(codes, minlength=len(events.table)))}
        )
    most = [code for code, _ in found.most_common() if code in chronic][:number]
    return [most[i] for i in np.argsort(hash_patient_ids(most), kind="stable")]


def fewer(patients: LabeledPatients) -> LabeledPatients:
    """Return all training patients, as many validation patients at most, and at most `MOST_TESTED` test patients."""
    draw = uniform(SEED, _HASHED, patients.dataset.columns["patient_hashes"].numpy())
    train = patients.rows(TRAIN)
    rows = [train]
    for split, most in ((VALIDATION, len(train)), (TEST, MOST_TESTED)):
        own = patients.rows(split)
        rows.append(own[np.argsort(draw[own], kind="stable")[:most]])
    return subset(patients, np.sort(np.concatenate(rows)))


def first_found(measure: Callable[[str], T | None], names: Iterable[str], jobs: int, most: int | None) -> list[T]:
    """Measure endpoints, so many at a time, until ``most`` have given a result; None: all of them."""
    work = (delayed(measure)(name) for name in names)
    results = Parallel(n_jobs=jobs, return_as="generator", pre_dispatch="n_jobs")(work)
    return list(islice((found for found in results if found is not None), most))
