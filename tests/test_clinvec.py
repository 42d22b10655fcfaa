"""ClinVec: the reader's join and its errors, resizing, and which code starts from which vector."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from clinvec_files import write_clinvec_folder
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from exmed_bert.clinvec.initialise import initialise_codes
from exmed_bert.clinvec.reader import read_clinvec
from exmed_bert.clinvec.resize import resize
from exmed_bert.config import ClinVecSettings
from exmed_bert.console import InputError, OptionError

ICD_CODES = ["C10", "C10.1", "E11", "E11.9", "E11.65", "I10", "M54", "M54.5", "R51"]
ATC_CODES = ["A10", "A10BA02", "C10", "C10A", "C10AA", "C10AA05"]
PUBLISHED = {("icd", code) for code in ICD_CODES} | {("atc", code) for code in ATC_CODES}
BOTH = "icd10cm,atc"

# A model's vocabulary: special tokens, then codes that have a vector, an ancestor with one, or neither.
VOCABULARY = [
    ("PAD", None, None),
    ("MASK", None, None),
    ("C10AA05", "atc", "C10AA05"),
    ("C10AA97", "atc", "C10AA"),
    ("C10BX01", "atc", "C10"),
    ("N02BE01", "atc", None),
    ("C10.2", "icd", "C10"),
    ("E11.9", "icd", "E11.9"),
    ("E11.95", "icd", "E11.9"),
    ("E11.3213", "icd", "E11"),
    ("M54.50", "icd", "M54.5"),
    ("U07.1", "icd", None),
]
CODES = [code for code, _, _ in VOCABULARY]
SYSTEMS = [system for _, system, _ in VOCABULARY]


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
    vocabulary = {"icd": "icd10cm", "atc": "atc"}[system]
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
                ours = clinvec.vectors[clinvec.rows["icd", code]]
                np.testing.assert_array_equal(ours, true_vector(published, "icd", code))
                assert not np.array_equal(ours, wrong[f"{code}:icd10cm"])

    @pytest.mark.parametrize("names", ["atc", ["atc"], " ATC ", ("atc", "atc")])
    def test_reads_only_the_requested_vocabularies(self, published, names):
        assert set(read_clinvec(published, names).rows) == {key for key in PUBLISHED if key[0] == "atc"}

    def test_codes_are_normalised_and_others_left_out(self, tmp_path):
        folder = write_clinvec_folder(tmp_path, {"icd10cm": ["e119", "E10-E14", "ICD10CM:I10"]}, 4)
        assert set(read_clinvec(folder, "icd10cm").rows) == {("icd", "E11.9"), ("icd", "I10")}

    def test_files_saved_again_by_other_programs(self, published, folder):
        """A byte order mark, Windows line ends, a named index column and blank lines at the end change nothing."""
        for path in folder.glob("*.csv"):
            text = path.read_text().replace("\n", "\r\n") + "\r\n"
            named = "node_index" + text if path.name == "ClinVec_icd10cm.csv" else text
            path.write_bytes(b"\xef\xbb\xbf" + named.encode())
        before, after = read_clinvec(published, BOTH), read_clinvec(folder, BOTH)
        assert before.rows == after.rows
        np.testing.assert_array_equal(before.vectors, after.vectors)


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

    @pytest.mark.parametrize("value", ["1.5", "", "E11.9"])
    def test_node_index_is_no_whole_number(self, folder, value):
        self.spoil(folder / "ClinVec_atc.csv", 2, 0, value)
        self.read(folder, f"ClinVec_atc.csv: line 2: node_index '{value}', expected a whole number")

    def test_two_vectors_for_one_node(self, folder):
        index = rows_of(folder / "ClinVec_atc.csv")[1][0]
        self.spoil(folder / "ClinVec_atc.csv", 5, 0, index)
        self.read(folder, f"ClinVec_atc.csv: line 5: node_index {index} stands a second time")

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

    @pytest.mark.parametrize(("size", "method"), [(4, "pca"), (24, "pad_random")])
    def test_auto(self, size, method):
        vectors = np.random.default_rng(3).normal(0, 3, (30, 12)).astype(np.float32)
        auto, chosen = resize(vectors, size, "auto", seed=7), resize(vectors, size, method, seed=7)
        np.testing.assert_array_equal(auto.vectors, chosen.vectors)
        assert auto.note == chosen.note and method in auto.note

    @pytest.mark.parametrize("method", ["auto", "pca", "truncate", "pad_random"])
    def test_right_size_stays_as_it_is(self, method):
        vectors = np.random.default_rng(3).normal(0, 3, (5, 12)).astype(np.float32)
        np.testing.assert_array_equal(resize(vectors, 12, method, seed=0).vectors, vectors)

    def test_pad_random_appends_small_seeded_noise(self):
        vectors = np.random.default_rng(4).normal(5, 3, (200, 128)).astype(np.float32)
        resized = resize(vectors, 288, "pad_random", seed=1).vectors
        np.testing.assert_array_equal(resized[:, :128], vectors)
        noise = resized[:, 128:]
        assert noise.std() == pytest.approx(0.1 * 3, rel=0.05)
        assert np.abs(noise.mean(axis=0)).max() < 0.15
        apart = ~np.eye(len(vectors), dtype=bool)
        assert (distances(resized)[apart] / distances(vectors)[apart]).max() < 1.02
        np.testing.assert_array_equal(resized, resize(vectors, 288, "pad_random", seed=1).vectors)
        assert not np.array_equal(resized, resize(vectors, 288, "pad_random", seed=2).vectors)

    def test_pad_random_refuses_to_shrink(self):
        with pytest.raises(InputError, match=r"from 128 to 64 dimensions; use pca.*--hidden-size of at least 128"):
            resize(np.zeros((3, 128), np.float32), 64, "pad_random", seed=0)


class TestInitialise:
    def test_codes_take_their_own_vector_or_the_nearest_ancestors(self, published):
        result = initialise_codes(CODES, SYSTEMS, settings(published, use_hierarchical_init=True), 16, 0.5, seed=0)
        assert result.source == [source for _, _, source in VOCABULARY]
        assert result.counts() == {"exact": 2, "ancestor": 6, "without": 2}
        assert result.ids.dtype == np.int64 and result.vectors.dtype == np.float32
        assert result.ids.tolist() == [i for i, source in enumerate(result.source) if source is not None]
        true = np.stack([true_vector(published, SYSTEMS[i], result.source[i]) for i in result.ids])
        factor = 0.5 / np.linalg.norm(true, axis=1).mean()
        np.testing.assert_allclose(result.vectors, true * factor, rtol=1e-5)

    def test_without_hierarchy_only_exact_codes(self, published):
        result = initialise_codes(CODES, SYSTEMS, settings(published), 16, 0.5, seed=0)
        assert [CODES[i] for i in result.ids] == ["C10AA05", "E11.9"]
        assert result.counts() == {"exact": 2, "ancestor": 0, "without": 8}

    def test_a_diagnosis_never_takes_a_drugs_vector(self, tmp_path):
        """C10 is a category of both systems."""
        folder = write_clinvec_folder(tmp_path, {"icd10cm": ["I10"], "atc": ["C10"]}, 16)
        hierarchical = settings(folder, use_hierarchical_init=True)
        result = initialise_codes(["C10", "C10", "C10.1"], ["icd", "atc", "icd"], hierarchical, 16, 0.5, seed=0)
        assert result.source == [None, "C10", None]

    def test_vocabulary_not_read_stays_without(self, published):
        only_icd = settings(published, vocab_types="icd10cm", use_hierarchical_init=True)
        result = initialise_codes(CODES, SYSTEMS, only_icd, 16, 0.5, seed=0)
        assert {SYSTEMS[i] for i in result.ids} == {"icd"}

    @pytest.mark.parametrize(
        ("method", "hidden_size"), [("auto", 8), ("auto", 16), ("auto", 24), ("pca", 8), ("pca", 24), ("truncate", 24)]
    )
    def test_mean_norm_and_width(self, published, method, hidden_size):
        resizing = settings(published, use_hierarchical_init=True, resize_if_needed=True, resize_method=method)
        result = initialise_codes(CODES, SYSTEMS, resizing, hidden_size, 0.34, seed=0)
        assert result.vectors.shape == (8, hidden_size)
        assert np.linalg.norm(result.vectors, axis=1).mean() == pytest.approx(0.34, rel=1e-5)

    def test_one_space_for_both_systems_and_relative_lengths_stay(self, published):
        resizing = settings(published, use_hierarchical_init=True, resize_if_needed=True, resize_method="pca")
        result = initialise_codes(CODES, SYSTEMS, resizing, 24, 0.34, seed=0)
        true = np.stack([true_vector(published, SYSTEMS[i], result.source[i]) for i in result.ids])
        before, after = distances(true), distances(result.vectors)
        np.testing.assert_allclose(after / after.max(), before / before.max(), atol=1e-5)

    def test_same_seed_same_vectors(self, published):
        padding = settings(published, resize_if_needed=True)
        first, again, other = (initialise_codes(CODES, SYSTEMS, padding, 24, 0.5, seed).vectors for seed in (1, 1, 2))
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)

    def test_no_code_has_a_vector(self, published):
        result = initialise_codes(["PAD", "U07.1"], [None, "icd"], settings(published), 16, 0.5, seed=0)
        assert result.ids.shape == (0,) and result.vectors.shape == (0, 16)
        assert result.counts() == {"exact": 0, "ancestor": 0, "without": 1}

    def test_one_vector_alone_centres_to_zero(self, tmp_path):
        folder = write_clinvec_folder(tmp_path, {"icd10cm": ["I10"]}, 16)
        alone = settings(folder, vocab_types="icd10cm", resize_if_needed=True, resize_method="pca")
        assert not initialise_codes(["I10"], ["icd"], alone, 24, 0.5, seed=0).vectors.any()

    def test_notes_tell_counts_and_resizing(self, published):
        resizing = settings(published, use_hierarchical_init=True, resize_if_needed=True)
        notes = initialise_codes(CODES, SYSTEMS, resizing, 8, 0.5, seed=0).notes
        assert any("from 16 to 8 dimensions by pca" in note for note in notes)
        assert any("2 exact, 6 from an ancestor, 2 without" in note for note in notes)

    def test_other_width_needs_permission(self, published):
        with pytest.raises(OptionError, match=r"24 differs from the 16 .*--resize-if-needed or --hidden-size 16"):
            initialise_codes(CODES, SYSTEMS, settings(published), 24, 0.5, seed=0)

    def test_folder_not_given(self):
        with pytest.raises(OptionError, match=r"--clinvec-dir.*ClinGraph_nodes\.csv and ClinVec_"):
            initialise_codes(CODES, SYSTEMS, settings(None), 24, 0.5, seed=0)


def test_no_torch_is_imported():
    program = "import sys, exmed_bert.clinvec.initialise; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[1]).returncode == 0
