"""ClinVec: the reader's join and its errors, resizing, and which code starts from which vector."""

import csv
import gzip
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from clinvec_files import write_clinvec_folder
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from exmed_bert.clinvec import hierarchy
from exmed_bert.clinvec.initialization import initialize_codes
from exmed_bert.clinvec.reader import VOCABULARIES, read_clinvec
from exmed_bert.clinvec.relatives import Origin, Relatives, deviations
from exmed_bert.clinvec.report import table, write
from exmed_bert.clinvec.resize import neighbor_overlap, resize
from exmed_bert.console import InputError, OptionError
from exmed_bert.reference.names import code_names
from exmed_bert.reporting.small_cells import MinCell
from exmed_bert.settings import ClinVecSettings

ICD_CODES = ["C10", "C10.1", "E11", "E11.9", "E11.65", "I10", "M54", "M54.5", "R51"]
ATC_CODES = ["A10", "A10BA02", "C10", "C10A", "C10AA", "C10AA05"]
METHODS = ["auto", "pca", "truncate", "learned_projection", "pad_smart", "pad_random"]
PUBLISHED = {("icd10cm", code) for code in ICD_CODES} | {("atc", code) for code in ATC_CODES}
BOTH = "icd10cm,atc"

# A model's vocabulary: special tokens, then codes and what each starts from.
VOCABULARY = [
    ("PAD", None, ("none", None)),
    ("MASK", None, ("none", None)),
    ("C10AA05", "atc", ("own", None)),
    ("C10AA97", "atc", ("ancestor", "C10AA")),
    ("C10BX01", "atc", ("ancestor", "C10")),
    ("A10BA03", "atc", ("ancestor", "A10")),
    ("C09AA01", "atc", ("siblings", None)),
    ("N02BE01", "atc", ("none", None)),
    ("C10.2", "icd10cm", ("ancestor", "C10")),
    ("E11.9", "icd10cm", ("own", None)),
    ("E11.95", "icd10cm", ("ancestor", "E11.9")),
    ("E11.3213", "icd10cm", ("ancestor", "E11")),
    ("M54.50", "icd10cm", ("ancestor", "M54.5")),
    ("E66.01", "icd10cm", ("chapter", None)),
    ("U07.1", "icd10cm", ("none", None)),
]
CODES = [code for code, _, _ in VOCABULARY]
SYSTEMS = [system for _, system, _ in VOCABULARY]
KEYS = [None if system is None else (system, code) for code, system, _ in VOCABULARY]


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """A folder that no test changes."""
    return write_clinvec_folder(tmp_path_factory.mktemp("clinvec"), {"icd10cm": ICD_CODES, "atc": ATC_CODES}, 16)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder that a test may spoil."""
    return write_clinvec_folder(tmp_path / "ClinVec", {"icd10cm": ICD_CODES, "atc": ATC_CODES}, 16)


def rows_of(path: Path) -> list[list[str]]:
    with open(path, newline="") as file:
        return list(csv.reader(file, delimiter="\t" if path.name == "ClinGraph_nodes.csv" else ","))


def rewrite(path: Path, rows: list[list[str]]) -> None:
    with open(path, "w", newline="") as file:
        csv.writer(file, delimiter="\t" if path.name == "ClinGraph_nodes.csv" else ",").writerows(rows)


def true_vector(folder: Path, system: str, code: str) -> np.ndarray:
    """Look one code up as its authors mean it: code to node_index to the row that carries this index."""
    vocabulary = {"icd10cm": "icd10cm", "atc": "atc"}[system]
    [index] = [row[3] for row in rows_of(folder / "ClinGraph_nodes.csv") if row[0] == f"{code}:{vocabulary}"]
    [vector] = [row[1:] for row in rows_of(folder / f"ClinVec_{vocabulary}.csv") if row[0] == index]
    return np.array(vector, dtype=np.float32)


def settings(folder: Path | None, **others) -> ClinVecSettings:
    return ClinVecSettings(use_clinvec=True, clinvec_dir=folder, **others)


def distances(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float64)
    return np.linalg.norm(vectors[:, None] - vectors[None], axis=2)


class TestReader:
    def test_every_code_gets_the_vector_of_its_node(self, published):
        clinvec = read_clinvec(published, BOTH)
        assert set(clinvec.rows) == PUBLISHED
        assert clinvec.dimension == 16 and clinvec.vectors.dtype == np.float32
        assert clinvec.vectors.shape == (len(PUBLISHED), 16)
        for (system, code), row in clinvec.rows.items():
            np.testing.assert_array_equal(clinvec.vectors[row], true_vector(published, system, code))

    def test_vectors_are_not_joined_by_row(self, published):
        """The known trap: the n-th vector belongs neither to the n-th node nor to the node with the index n."""
        clinvec = read_clinvec(published, "icd10cm")
        vectors = [np.array(row[1:], dtype=np.float32) for row in rows_of(published / "ClinVec_icd10cm.csv")[1:]]
        nodes = rows_of(published / "ClinGraph_nodes.csv")[1:]
        for order in (nodes, sorted(nodes, key=lambda node: int(node[3]))):
            wrong = {node[0]: vector for node, vector in zip(order, vectors, strict=False)}
            shared = [code for _, code in clinvec.rows if f"{code}:icd10cm" in wrong]
            assert len(shared) >= 3  # the folder has codes to be wrong about
            for code in shared:
                ours = clinvec.vectors[clinvec.rows["icd10cm", code]]
                np.testing.assert_array_equal(ours, true_vector(published, "icd10cm", code))
                assert not np.array_equal(ours, wrong[f"{code}:icd10cm"])

    @pytest.mark.parametrize("names", ["atc", ["atc"], " ATC ", ("atc", "atc")])
    def test_reads_only_the_requested_vocabularies(self, published, names):
        assert set(read_clinvec(published, names).rows) == {key for key in PUBLISHED if key[0] == "atc"}

    def test_codes_are_normalized_and_others_left_out(self, tmp_path):
        folder = write_clinvec_folder(tmp_path, {"icd10cm": ["e119", "E10-E14", "ICD10CM:I10"]}, 4)
        assert set(read_clinvec(folder, "icd10cm").rows) == {("icd10cm", "E11.9"), ("icd10cm", "I10")}

    def test_a_file_that_may_not_be_whole_is_a_warning(self, tmp_path):
        codes = [f"I{i}" for i in range(10, 40)]
        folder = write_clinvec_folder(tmp_path, {"icd10cm": codes}, 4)
        path = folder / "ClinVec_icd10cm.csv"
        header, *rows = rows_of(path)
        rewrite(path, [header, *rows[3:]])  # a tenth has none, which may well be
        found = read_clinvec(folder, "icd10cm")
        assert found.without == {"icd10cm": 3} and not found.warnings
        rewrite(path, [header, *rows[4:]])
        (warning,) = read_clinvec(folder, "icd10cm").warnings
        assert "4 of the 30 nodes of icd10cm in ClinGraph_nodes.csv have no vector; is the file whole?" in warning

    def test_a_code_in_two_spellings_is_a_warning(self, tmp_path):
        folder = write_clinvec_folder(tmp_path, {"icd10cm": ["E11.9", "e119", "I10"]}, 4)
        found = read_clinvec(folder, "icd10cm")
        assert set(found.rows) == {("icd10cm", "E11.9"), ("icd10cm", "I10")} and found.sizes == {"icd10cm": 2}
        assert "1 codes stand there a second time in another spelling, the first of them E11.9" in found.warnings[0]

    def test_files_saved_again_by_other_programs(self, published, folder):
        """A byte order mark, Windows line ends, a named index column and blank lines at the end change nothing."""
        for path in folder.glob("*.csv"):
            text = path.read_text().replace("\n", "\r\n") + "\r\n"
            named = "node_index" + text if path.name == "ClinVec_icd10cm.csv" else text
            path.write_bytes(b"\xef\xbb\xbf" + named.encode())
        before, after = read_clinvec(published, BOTH), read_clinvec(folder, BOTH)
        assert before.rows == after.rows
        np.testing.assert_array_equal(before.vectors, after.vectors)

    @pytest.mark.parametrize("name", sorted(VOCABULARIES))
    def test_all_nine_vocabularies(self, tmp_path, name):
        codes = ("I10", "250.00", "C10AA05", "99213", "83367", "250.2", "718-7", "73211009", "C0011849")
        code = dict(zip(VOCABULARIES, codes, strict=True))[name]
        node_type = {"snomedct": "snomedct_us", "umls": "umls_cui"}.get(name, name)
        folder = write_clinvec_folder(tmp_path, {name: [code]}, 4)
        path = folder / "ClinGraph_nodes.csv"
        path.write_text(path.read_text().replace(f":{name}", f":{node_type}"))
        assert set(read_clinvec(folder, name).rows) == {({"lnc": "loinc"}.get(name, name), code)}

    def test_auto_takes_what_the_systems_can_use(self, tmp_path):
        folder = write_clinvec_folder(tmp_path, {"icd10cm": ["I10"], "atc": ["C10"], "phecode": ["8.0"]}, 4)
        assert read_clinvec(folder, "auto", {"icd10cm", "atc"}).sizes == {"icd10cm": 1, "atc": 1}
        assert read_clinvec(folder, "auto").sizes == {"icd10cm": 1, "atc": 1, "phecode": 1}
        assert read_clinvec(folder, "auto", {"atc"}).sizes == {"atc": 1}
        assert read_clinvec(folder, "phecode,atc").sizes == {"phecode": 1, "atc": 1}

    @pytest.mark.parametrize(
        "change",
        [
            lambda header, rows, ids: (["node_index", *header[1:]], rows),
            lambda header, rows, ids: (["node_id", *header[1:]], rows),
            lambda header, rows, ids: (header[1:], rows),  # a name fewer than columns
            lambda header, rows, ids: (["", "Unnamed: 0", *header[1:]], [[str(i), *r] for i, r in enumerate(rows)]),
            lambda header, rows, ids: (["node_id", *header[1:]], [[ids[r[0]], *r[1:]] for r in rows]),
            lambda header, rows, ids: (["node_id", *header[1:]], [[ids[r[0]].split(":")[0], *r[1:]] for r in rows]),
        ],
        ids=["named", "node_id of numbers", "no empty cell", "numbered twice", "ids", "codes"],
    )
    @pytest.mark.parametrize("compressed", [False, True])
    def test_other_peoples_copies(self, published, folder, change, compressed):
        ids = {row[3]: row[0] for row in rows_of(folder / "ClinGraph_nodes.csv")}
        path = folder / "ClinVec_atc.csv"
        header, *rows = rows_of(path)
        header, rows = change(header, rows, ids)
        rewrite(path, [header, *rows])
        if compressed:
            for file in list(folder.glob("*.csv")):
                Path(f"{file}.gz").write_bytes(gzip.compress(file.read_bytes()))
                file.unlink()
        before, after = read_clinvec(published, BOTH), read_clinvec(folder, BOTH)
        assert before.rows == after.rows
        np.testing.assert_array_equal(before.vectors, after.vectors)

    def test_ids_need_no_nodes_file(self, folder):
        ids = {row[3]: row[0] for row in rows_of(folder / "ClinGraph_nodes.csv")}
        path = folder / "ClinVec_atc.csv"
        header, *rows = rows_of(path)
        rewrite(path, [["node_id", *header[1:]], *([ids[row[0]], *row[1:]] for row in rows)])
        (folder / "ClinGraph_nodes.csv").unlink()
        assert len(read_clinvec(folder, "atc").rows) == len(ATC_CODES)

    @pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e39"])
    def test_vectors_that_are_not_finite_are_left_out_and_counted(self, folder, value):
        path = folder / "ClinVec_atc.csv"
        rows = rows_of(path)
        rows[2][6] = value
        rewrite(path, rows)
        clinvec = read_clinvec(folder, BOTH)
        assert len(clinvec.rows) == len(PUBLISHED) - 1 and np.isfinite(clinvec.vectors).all()
        [warning] = clinvec.warnings
        assert "1 of 6 vectors" in warning and str(path) in warning


class TestReaderErrors:
    """Each is one line that names the file, the row or field, the value, and what was expected."""

    def read(self, folder: Path, *parts: str, vocab_types=BOTH) -> InputError:
        with pytest.raises(InputError) as caught:
            read_clinvec(folder, vocab_types)
        message = str(caught.value)
        assert "\n" not in message
        for part in parts:
            assert part in message
        return caught.value

    def spoil(self, path: Path, line: int, column: int, value: str) -> None:
        rows = rows_of(path)
        rows[line - 1][column] = value
        rewrite(path, rows)

    def test_folder_missing(self, tmp_path):
        self.read(tmp_path / "nowhere", "nowhere: folder not found", "ClinGraph_nodes.csv")

    def test_folder_is_a_file(self, tmp_path):
        (tmp_path / "file").touch()
        self.read(tmp_path / "file", "is a file")

    def test_nodes_file_missing(self, folder):
        (folder / "ClinGraph_nodes.csv").unlink()
        self.read(folder, "ClinGraph_nodes.csv: file not found")

    def test_vector_file_missing_lists_those_there(self, folder):
        (folder / "ClinVec_atc.csv").unlink()
        self.read(folder, "ClinVec_atc.csv: file not found", "there is ClinVec_icd10cm.csv")

    @pytest.mark.parametrize("names", ["icd10cm,icd10", "rxnor", "", [], "auto,atc"])
    def test_unknown_vocabulary(self, folder, names):
        error = self.read(folder, "--vocab-types", "expected auto or icd10cm, icd9cm, atc", vocab_types=names)
        assert isinstance(error, OptionError)

    @pytest.mark.parametrize("name", ["ClinVec_icd10cm.csv", "ClinGraph_nodes.csv"])
    @pytest.mark.parametrize("change", [lambda row: row[:-1], lambda row: [*row, "0"]])
    def test_wrong_number_of_columns(self, folder, name, change):
        rows = rows_of(folder / name)
        rewrite(folder / name, [*rows[:3], change(rows[3]), *rows[4:]])
        found, expected = len(change(rows[3])), len(rows[3])
        self.read(folder, f"{name}: line 4: {found} columns, expected {expected}")

    @pytest.mark.parametrize("value", ["", "abc"])
    def test_value_is_no_number(self, folder, value):
        self.spoil(folder / "ClinVec_atc.csv", 3, 6, value)
        self.read(folder, f"ClinVec_atc.csv: line 3: column 5: '{value}', expected a number")

    @pytest.mark.parametrize("value", ["1.5", "", "E11.9", "9" * 19])
    def test_node_index_is_no_whole_number(self, folder, value):
        self.spoil(folder / "ClinVec_atc.csv", 2, 0, value)
        self.read(folder, f"ClinVec_atc.csv: line 2: node_index '{value}', expected a whole number")

    def test_two_vectors_for_one_node(self, folder):
        index = rows_of(folder / "ClinVec_atc.csv")[1][0]
        self.spoil(folder / "ClinVec_atc.csv", 5, 0, index)
        self.read(folder, f"ClinVec_atc.csv: line 5: node_index {index}: the code ", "stands a second time")

    def test_two_nodes_with_one_index(self, folder):
        first, second = rows_of(folder / "ClinGraph_nodes.csv")[1:3]
        self.spoil(folder / "ClinGraph_nodes.csv", 3, 3, first[3])
        self.read(folder, f"ClinGraph_nodes.csv: line 3: node_index {first[3]} of node '{second[0]}'", first[0])

    def test_vector_for_no_node(self, folder):
        self.spoil(folder / "ClinVec_atc.csv", 2, 0, "9999")
        self.read(folder, "ClinVec_atc.csv: line 2: node_index 9999 is not in ClinGraph_nodes.csv")

    def test_vectors_numbered_by_row(self, folder):
        """A file written from a join by row carries row numbers, which are nodes of other vocabularies."""
        path = folder / "ClinVec_atc.csv"
        header, *rows = rows_of(path)
        rewrite(path, [header, *([str(n), *row[1:]] for n, row in enumerate(rows))])
        self.read(folder, "ClinVec_atc.csv: line 2: node_index 0 is node '001.0:icd9cm'", "expected a node of type atc")

    def test_node_without_a_type(self, folder):
        path = folder / "ClinGraph_nodes.csv"
        rewrite(path, [["I10" if row[0] == "I10:icd10cm" else row[0], *row[1:]] for row in rows_of(path)])
        self.read(folder, "is node 'I10'", "expected a node of type icd10cm")

    def test_no_index_column(self, folder):
        path = folder / "ClinVec_icd10cm.csv"
        rewrite(path, [row[1:] for row in rows_of(path)])
        self.read(folder, "ClinVec_icd10cm.csv: line 1", "node_index")

    def test_nodes_separated_by_commas(self, folder):
        path = folder / "ClinGraph_nodes.csv"
        path.write_text(path.read_text().replace("\t", ","))
        self.read(folder, "ClinGraph_nodes.csv: line 1", "separated by tabs")

    @pytest.mark.parametrize("name", ["ClinGraph_nodes.csv", "ClinVec_icd10cm.csv"])
    @pytest.mark.parametrize(
        ("content", "problem"),
        [(b"", "line 1"), (b"\x80PNG\xff\xfe", "is not UTF-8"), (b'"' + b"x" * 200_000, "line 1: field larger")],
    )
    def test_no_table_at_all(self, folder, name, content, problem):
        (folder / name).write_bytes(content)
        self.read(folder, f"{name}: {problem}")

    def test_vocabularies_of_different_dimensions(self, folder):
        path = folder / "ClinVec_atc.csv"
        rewrite(path, [row[:-1] for row in rows_of(path)])
        self.read(folder, "ClinVec_atc.csv: has vectors of 15 dimensions, expected 16 as in ClinVec_icd10cm.csv")


class TestResize:
    some_vectors = arrays(
        np.float32,
        st.tuples(st.integers(1, 8), st.integers(1, 6)),
        elements=st.integers(-640, 640).map(lambda n: n / 64),
    )

    @given(some_vectors, st.integers(1, 12), st.sampled_from(["auto", "pca", "truncate"]))
    def test_shape_type_and_note(self, vectors, size, method):
        resized = resize(vectors, size, method, seed=0)
        assert resized.vectors.shape == (len(vectors), size) and resized.vectors.dtype == np.float32
        assert np.isfinite(resized.vectors).all()
        assert str(size) in resized.note and str(vectors.shape[1]) in resized.note and "\n" not in resized.note

    @given(some_vectors, st.integers(1, 12))
    def test_pca_keeps_all_distances_when_growing_and_lengthens_none_when_shrinking(self, vectors, size):
        before, after = distances(vectors), distances(resize(vectors, size, "pca", seed=0).vectors)
        if size >= min(len(vectors), vectors.shape[1]):
            np.testing.assert_allclose(after, before, atol=1e-4)
        assert (after <= before + 1e-4).all()

    @given(some_vectors, st.integers(1, 12))
    def test_truncate_keeps_the_first_dimensions(self, vectors, size):
        kept = min(size, vectors.shape[1])
        resized = resize(vectors, size, "truncate", seed=0)
        np.testing.assert_array_equal(resized.vectors[:, :kept], vectors[:, :kept])
        assert not resized.vectors[:, kept:].any()
        assert ("zero" in resized.note) == (size > vectors.shape[1])

    @pytest.mark.parametrize("size", [3, 9, 20])
    def test_pca_agrees_with_scikit_learn(self, size):
        from sklearn.decomposition import PCA

        vectors = np.random.default_rng(1).normal(0, np.arange(1, 11), (50, 10)).astype(np.float32)
        reference = PCA(n_components=min(size, 10)).fit(vectors.astype(np.float64))
        resized = resize(vectors, size, "pca", seed=0)
        signs = [np.sign(axis[np.abs(axis).argmax()]) for axis in reference.components_]
        axes = reference.components_ * np.array(signs)[:, None]
        expected = (vectors - vectors.mean(axis=0)) @ axes.T
        np.testing.assert_allclose(resized.vectors[:, : len(axes)], expected, atol=1e-4)
        assert not resized.vectors[:, len(axes) :].any()
        assert f"{reference.explained_variance_ratio_.sum():.1%}" in resized.note

    def test_pca_does_not_depend_on_the_order_of_rows(self):
        random = np.random.default_rng(2)
        vectors = random.normal(0, 3, (40, 12)).astype(np.float32)
        order = random.permutation(40)
        shuffled = resize(vectors[order], 5, "pca", seed=0).vectors
        np.testing.assert_allclose(shuffled, resize(vectors, 5, "pca", seed=0).vectors[order], atol=1e-4)

    @pytest.mark.parametrize(("size", "method"), [(4, "pca"), (24, "pad_smart")])
    def test_auto(self, size, method):
        vectors = np.random.default_rng(3).normal(0, 3, (30, 12)).astype(np.float32)
        auto, chosen = resize(vectors, size, "auto", seed=7), resize(vectors, size, method, seed=7)
        np.testing.assert_array_equal(auto.vectors, chosen.vectors)
        assert auto.note == chosen.note and method in auto.note

    @pytest.mark.parametrize("method", METHODS)
    def test_right_size_stays_as_it_is(self, method):
        vectors = np.random.default_rng(3).normal(0, 3, (5, 12)).astype(np.float32)
        np.testing.assert_array_equal(resize(vectors, 12, method, seed=0).vectors, vectors)

    @pytest.mark.parametrize("method", ["pad_smart", "pad_random", "learned_projection"])
    def test_seeded(self, method):
        vectors = np.random.default_rng(4).normal(0, 3, (60, 8)).astype(np.float32)
        one, again, other = (resize(vectors, 12, method, seed).vectors for seed in (1, 1, 2))
        np.testing.assert_array_equal(one, again)
        assert not np.array_equal(one, other)

    def test_pad_random_appends_noise_of_the_vectors_own_size(self):
        vectors = np.random.default_rng(4).normal(0, 3, (200, 128)).astype(np.float32)
        resized = resize(vectors, 288, "pad_random", seed=1).vectors
        np.testing.assert_array_equal(resized[:, :128], vectors)
        assert resized[:, 128:].std() == pytest.approx(3, rel=0.05)

    def test_pad_smart_continues_the_spectrum_and_keeps_neighbors(self):
        """Variances that fall by a factor of 100 over 32 axes go on to fall behind them."""
        spreads = np.geomspace(5, 0.5, 32)
        vectors = (np.random.default_rng(4).normal(0, 1, (400, 32)) * spreads).astype(np.float32)
        resized = resize(vectors, 48, "pad_smart", seed=1).vectors
        np.testing.assert_array_equal(resized[:, :32], vectors)
        appended = resized[:, 32:].std(axis=0)
        assert (appended < 0.6).all() and (appended > 0.05).all() and appended[0] > appended[-1]
        assert neighbor_overlap(vectors, resized) > 0.9

    def test_learned_projection_keeps_more_neighbors_than_truncation(self):
        """The first dimensions are noise that says nothing, the others hold clusters."""
        rng = np.random.default_rng(5)
        clusters = rng.normal(0, 3, (20, 12))[rng.integers(0, 20, 400)] + rng.normal(0, 0.5, (400, 12))
        vectors = np.hstack([rng.normal(0, 1, (400, 6)), clusters]).astype(np.float32)
        learned, cut = (resize(vectors, 8, method, 0).vectors for method in ("learned_projection", "truncate"))
        assert neighbor_overlap(vectors, learned) > neighbor_overlap(vectors, cut) + 0.1

    def test_neighbor_overlap(self):
        vectors = np.random.default_rng(6).normal(0, 1, (300, 16))
        assert neighbor_overlap(vectors, vectors * 3) == 1
        assert neighbor_overlap(vectors, np.random.default_rng(7).normal(0, 1, (300, 16))) < 0.15

    @pytest.mark.parametrize("method", ["pad_random", "pad_smart"])
    def test_padding_refuses_to_shrink(self, method):
        with pytest.raises(InputError, match=r"from 128 to 64 dimensions; use pca.*--hidden-size of at least 128"):
            resize(np.zeros((3, 128), np.float32), 64, method, seed=0)


class TestInitialize:
    def start(self, folder, width=16, norm=0.5, seed=0, keys=KEYS, **others):
        return initialize_codes(keys, settings(folder, **others), width, norm, seed)

    def test_each_code_starts_from_what_the_rungs_say(self, published):
        result = self.start(published, use_hierarchical_init=True)
        assert [(origin.how, origin.ancestor) for origin in result.origins] == [start for _, _, start in VOCABULARY]
        assert result.ids.dtype == np.int64 and result.vectors.dtype == np.float32
        assert result.ids.tolist() == [i for i, (_, _, start) in enumerate(VOCABULARY) if start[0] != "none"]

    def test_without_hierarchy_codes_take_their_own_vector_alone(self, published):
        result = self.start(published)
        assert [CODES[i] for i in result.ids] == ["C10AA05", "E11.9"]
        true = np.stack([true_vector(published, SYSTEMS[i], CODES[i]) for i in result.ids])
        np.testing.assert_allclose(result.vectors, true * 0.5 / np.linalg.norm(true, axis=1).mean(), rtol=1e-5)

    def test_a_novel_code_lies_next_to_its_parent_and_not_on_it(self, published):
        result = self.start(published, use_hierarchical_init=True)
        vectors = dict(zip([CODES[i] for i in result.ids], result.vectors, strict=True))
        novel, parent = vectors["E11.95"], vectors["E11.9"]
        cosine = novel @ parent / np.linalg.norm(novel) / np.linalg.norm(parent)
        assert 0.95 < cosine < 1 - 1e-6

    def test_a_diagnosis_never_takes_a_drugs_vector(self, tmp_path):
        """C10 is a category of both systems."""
        folder = write_clinvec_folder(tmp_path, {"icd10cm": ["I10"], "atc": ["C10"]}, 16)
        keys = [("icd10cm", "C10"), ("atc", "C10"), ("icd10cm", "C10.1")]
        result = self.start(folder, keys=keys, use_hierarchical_init=True)
        assert [origin.how for origin in result.origins] == ["none", "own", "none"]

    def test_vocabulary_not_read_stays_without(self, published):
        result = self.start(published, vocab_types="icd10cm", use_hierarchical_init=True)
        assert {SYSTEMS[i] for i in result.ids} == {"icd10cm"}

    @pytest.mark.parametrize(
        ("method", "hidden_size"), [("auto", 8), ("auto", 16), ("auto", 24), ("pca", 8), ("pca", 24), ("truncate", 24)]
    )
    def test_mean_norm_and_width(self, published, method, hidden_size):
        resizing = {"use_hierarchical_init": True, "resize_if_needed": True, "resize_method": method}
        result = self.start(published, hidden_size, 0.34, **resizing)
        assert result.vectors.shape == (len(result.ids), hidden_size)
        assert np.linalg.norm(result.vectors, axis=1).mean() == pytest.approx(0.34, rel=1e-5)

    def test_scale_overrules_the_norm(self, published):
        [true] = [true_vector(published, "icd10cm", "I10")]
        result = self.start(published, keys=[("icd10cm", "I10")], clinvec_scale=0.25)
        np.testing.assert_allclose(result.vectors, [true * 0.25], rtol=1e-6)

    def test_one_space_for_both_systems_and_relative_lengths_stay(self, published):
        result = self.start(published, 24, 0.34, resize_if_needed=True, resize_method="pca", keys=sorted(PUBLISHED))
        true = np.stack([true_vector(published, *key) for key in sorted(PUBLISHED)])
        before, after = distances(true), distances(result.vectors)
        np.testing.assert_allclose(after / after.max(), before / before.max(), atol=1e-5)

    def test_same_seed_same_vectors(self, published):
        options = {"resize_if_needed": True, "use_hierarchical_init": True}
        first, again, other = (self.start(published, 24, seed=seed, **options).vectors for seed in (1, 1, 2))
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)

    def test_no_code_has_a_vector(self, published):
        result = self.start(published, keys=[None, ("icd10cm", "U07.1")])
        assert result.ids.shape == (0,) and result.vectors.shape == (0, 16)

    def test_notes_tell_vocabularies_resizing_and_scale(self, published):
        notes = "\n".join(self.start(published, 8, resize_if_needed=True).notes)
        assert "icd10cm 9, atc 6" in notes and "from 16 to 8 dimensions by pca" in notes and "multiplied by" in notes

    def test_other_width_needs_permission(self, published):
        with pytest.raises(OptionError, match=r"24 differs from the 16 .*--resize-if-needed or --hidden-size 16"):
            self.start(published, 24)

    def test_folder_not_given(self):
        with pytest.raises(OptionError, match=r"--clinvec-dir.*ClinGraph_nodes\.csv and ClinVec_"):
            self.start(None)

    def test_the_report_counts_codes_and_events(self, published, tmp_path):
        result = self.start(published, use_hierarchical_init=True)
        events = np.arange(len(KEYS)) * 10
        write(tmp_path, result, events, {CODES.index("E11.95")}, MinCell(25))
        content = json.loads((tmp_path / "clinvec_report.json").read_text())
        for part in (content["start"], *content["by_system"].values()):
            assert sum(row["share_of_events"] for row in part.values()) == pytest.approx(1)
        assert content["start"]["own"]["codes"] == 2
        [novel] = content["novel_codes"]
        assert (novel["code"], novel["start"], novel["ancestor"]) == ("E11.95", "ancestor", "E11.9")
        with open(tmp_path / "clinvec_codes.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["code"] for row in rows] == CODES[2:]
        hidden, *others = [row["events"] for row in rows]
        assert hidden == "<25" and others == [str(count) for count in events[3:]]
        assert content["notes"][-1].startswith("Counts from 1 to 24 are hidden")
        assert content["start"]["own"]["share_of_events"] == pytest.approx(
            sum(
                events[i] if events[i] >= 25 else 12.5
                for i, origin in enumerate(result.origins)
                if i > 1 and origin.how == "own"
            )
            / (events[2:].sum() - 7.5)
        )
        shown = "\n".join(table(result, events, MinCell(0)))
        assert re.search(r"their own vector +2 +\d+\.\d%", shown)


class TestRelatives:
    KEYS: ClassVar = [("icd10cm", code) for code in ("E11", "E11.6", "E11.64", "E11.65", "E11.9", "E10.9", "I10")]
    TABLE: ClassVar = np.eye(7, dtype=np.float32) * 3

    def weights(self, code, trust, system="icd10cm"):
        matrix, [origin] = Relatives(self.KEYS).estimates([(system, code)], {"icd10cm": trust})
        found = dict(zip([code for _, code in self.KEYS], matrix.toarray()[0], strict=False))
        return {name: pytest.approx(weight) for name, weight in found.items() if weight}, origin, matrix

    @pytest.mark.parametrize(
        ("code", "trust", "weights"),
        [
            ("E11.69", 2, {"E11.6": 1 / 2, "E11.64": 1 / 4, "E11.65": 1 / 4}),  # the parent counts as two siblings
            ("E11.69", 0, {"E11.64": 1 / 2, "E11.65": 1 / 2}),
            ("E11.69", np.inf, {"E11.6": 1}),
            ("E11.64", 1, {"E11.6": 1 / 2, "E11.65": 1 / 2}),  # estimated as if it had no vector
            ("E11.95", 1, {"E11.9": 1}),  # no siblings
            ("E11.9512", 4, {"E11.9": 1}),  # two levels without a vector
            ("E11.6", np.inf, {"E11": 1 / 3, "E11.64": 1 / 3, "E11.65": 1 / 3}),  # with children
        ],
    )
    def test_weights(self, code, trust, weights):
        assert self.weights(code, trust)[0] == weights

    def test_siblings_without_a_parent_and_the_chapter(self):
        found, origin, matrix = self.weights("E10.65", 1)  # E10 has no vector, but a child
        assert origin == Origin("siblings", None, 0) and matrix.sum() == pytest.approx(1) and "E10.9" in found
        _, origin, matrix = self.weights("E66.9", 1)
        assert origin == Origin("chapter", None, 0) and matrix.sum() == pytest.approx(1)
        assert self.weights("N18.3", 1)[1] == Origin("none")
        assert self.weights("G04CA02", 1, "atc")[1] == Origin("none")

    @given(st.sampled_from(KEYS), st.sampled_from([0.0, 0.5, 4.0, np.inf]))
    def test_a_code_is_never_estimated_from_itself(self, key, trust):
        """Its own weight and that in the mean of its chapter cancel out."""
        relatives = Relatives(self.KEYS)
        matrix, [origin] = relatives.estimates([key], {"icd10cm": trust})
        if origin.how != "none":
            assert abs(relatives.blend(matrix, self.TABLE)[0, self.KEYS.index(key)]) < 1e-6

    @given(st.sampled_from(["E11.69", "E11.95", "E10.65", "E66.9", "I10.5", "I11.0"]))
    def test_estimates_are_as_long_as_what_they_are_made_of(self, code):
        relatives = Relatives(self.KEYS)
        blended = relatives.blend(relatives.estimates([("icd10cm", code)], {"icd10cm": 2.0})[0], self.TABLE)
        assert np.linalg.norm(blended) == pytest.approx(3, rel=1e-5)

    @pytest.mark.parametrize("nearer", ["parent", "siblings"])
    def test_trust_follows_the_vectors(self, nearer):
        """Where children scatter around their parent it is trusted; where they lie elsewhere together it is not."""
        rng = np.random.default_rng(0)
        keys, rows = [], []
        for family in range(30):
            parent, elsewhere = rng.normal(0, 1, (2, 32))
            keys += [("icd10cm", f"M{family:02}")] + [("icd10cm", f"M{family:02}.{i}") for i in range(6)]
            center = parent if nearer == "parent" else elsewhere
            rows += [parent, *(center + 0.5 * rng.normal(0, 1, (6, 32)))]
        trust = Relatives(keys).measure_trust(np.array(rows, dtype=np.float32))["icd10cm"]
        assert trust >= 4 if nearer == "parent" else trust <= 0.5

    def test_deviations_are_small_seeded_and_follow_the_spread(self):
        keys = [("icd10cm", "E11.95"), ("icd10cm", "E11.96")]
        steps = deviations(keys, np.array([2.0, 4.0]), 400, seed=1)
        assert np.linalg.norm(steps, axis=1) == pytest.approx([0.1, 0.2], rel=0.15)
        np.testing.assert_array_equal(steps[1:], deviations(keys[1:], np.array([4.0]), 400, seed=1))
        assert not np.array_equal(steps, deviations(keys, np.array([2.0, 4.0]), 400, seed=2))

    def test_spread_is_that_of_the_family_or_of_the_system(self):
        relatives = Relatives(self.KEYS)
        spreads = relatives.spreads([("icd10cm", "E11.69"), ("icd10cm", "I10.5"), ("atc", "C10")], self.TABLE)
        assert spreads == pytest.approx([3 * np.sqrt(2), 3 * np.sqrt(2), 3])


@pytest.mark.slow
class TestHierarchy:
    """Embeddings of the trees, on the part of the graph that is quickly made."""

    @pytest.fixture(scope="class")
    def made(self, tmp_path_factory):
        made = hierarchy.make(32, 0.1, seed=3)
        folder = tmp_path_factory.mktemp("hierarchy")
        hierarchy.write(made, folder, ~made.held_out)
        hierarchy.write(made, folder / "held_out", made.held_out)
        return made, folder

    def test_files_are_read_back_as_clinvec(self, made):
        embeddings, folder = made
        kept, held = read_clinvec(folder, "auto"), read_clinvec(folder / "held_out", "auto")
        assert not set(kept.rows) & set(held.rows)
        assert len(kept.rows) + len(held.rows) == len(embeddings.keys)
        for part in (kept, held):
            for row, key in list(enumerate(embeddings.keys))[::997]:
                if key in part.rows:
                    np.testing.assert_allclose(part.vectors[part.rows[key]], embeddings.vectors[row], atol=1e-4)

    def test_a_tenth_of_each_system_is_held_out_and_no_invented_code_is_there(self, made):
        embeddings, _ = made
        for system in ("icd10cm", "atc"):
            share = embeddings.held_out[[key[0] == system for key in embeddings.keys]].mean()
            assert share == pytest.approx(0.1, abs=0.01)
        assert not {("icd10cm", "E11.95"), ("atc", "C10AA97")} & set(embeddings.keys)

    def test_relatives_and_indications_lie_near(self, made):
        embeddings, _ = made
        unit = embeddings.vectors / np.linalg.norm(embeddings.vectors, axis=1, keepdims=True)
        row = {key: i for i, key in enumerate(embeddings.keys)}

        def cosine(one, other):
            return float(unit[row[one]] @ unit[row[other]])

        diabetes, metformin, statin = ("icd10cm", "E11.9"), ("atc", "A10BA02"), ("atc", "C10AA05")
        for near in (("icd10cm", "E11.65"), ("icd10cm", "E11"), metformin):
            assert cosine(diabetes, near) > 0.4 > cosine(diabetes, ("icd10cm", "S72.001"))
        assert cosine(statin, ("atc", "C10AA01")) > 0.4 > cosine(statin, ("atc", "N06AB03"))

    def test_seeded(self):
        graph = hierarchy.Graph()
        for i in range(20):
            graph.add(("icd10cm", str(i)), ("icd10cm", str(i // 2)), 1.0)
        one, again, other = (hierarchy.embed(graph.adjacency(), 8, seed) for seed in (1, 1, 2))
        np.testing.assert_array_equal(one, again)
        assert not np.array_equal(one, other)

    @pytest.mark.parametrize("needs_the_list", [hierarchy.build_graph, code_names])
    def test_a_missing_package_is_named(self, needs_the_list, monkeypatch):
        monkeypatch.setitem(sys.modules, "simple_icd_10_cm", None)
        with pytest.raises(InputError, match=r"simple_icd_10_cm is not installed.*pip install simple-icd-10-cm"):
            needs_the_list()

    def test_the_official_list_is_loaded_when_it_is_needed(self):
        program = (
            "import sys, exmed_bert.analysis.novel_codes.analyze, exmed_bert.clinvec.hierarchy;"
            "sys.exit('simple_icd_10_cm' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[1]).returncode == 0


def test_no_torch_is_imported():
    program = "import sys, exmed_bert.clinvec.initialization; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[1]).returncode == 0
