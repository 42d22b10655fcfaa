"""From other systems' codes to ATC by the vocabularies of OHDSI, which are downloaded from Athena.

https://athena.ohdsi.org
"""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from exmed_bert.codes import CodeKey
from exmed_bert.codes.flat import ndc_forms
from exmed_bert.console import InputError
from exmed_bert.data import database
from exmed_bert.data.bounded import OUT_OF_CORE, check_parquet, open_bounded
from exmed_bert.data.gzipped import check_gzip

if TYPE_CHECKING:
    import duckdb

_TABLES = ("concept", "concept_relationship", "concept_ancestor")

# The vocabularies of OHDSI that hold a code system's codes; of others no code leads to a drug.
_VOCABULARIES = {
    "RxNorm": "rxnorm",
    "RxNorm Extension": "rxnorm",
    "NDC": "ndc",
    "SNOMED": "snomedct",
    "HCPCS": "hcpcs",
    "CPT4": "cpt",
}
_NUMBERS = ("concept_id", "concept_id_1", "concept_id_2", "ancestor_concept_id", "descendant_concept_id")
_LONGEST = 1_000_000  # bytes of a header
_FILE = re.compile(rf"({'|'.join(_TABLES)})\.(csv|csv\.gz|parquet)", re.IGNORECASE)


class Vocabularies:
    """The vocabularies of OHDSI, read when they are first needed: each table once, and of them what leads to ATC.

    A drug has the ATC codes of the fifth level that stand above it in ``concept_ancestor``, or above the standard
    concept that ``concept_relationship`` maps it to. It may have several: those of its ingredients, and those of the
    several uses of one. They come in the order of the codes.
    """

    def __init__(self, folder: Path) -> None:
        """Find the tables of an unpacked download: CONCEPT.csv, CONCEPT_RELATIONSHIP.csv and CONCEPT_ANCESTOR.csv.

        Their names may have any letter case; tables may be separated by tabs, as Athena's are, or by commas,
        compressed, or Parquet.

        Raises:
            InputError: the folder or a file is missing, or a table stands there twice or has no header.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise InputError(f"{folder}: folder not found, expected an unpacked download from athena.ohdsi.org")
        files: dict[str, Path] = {}
        for path in sorted(folder.iterdir()):
            found = _FILE.fullmatch(path.name)
            if found and path.is_file():
                table = found[1].lower()
                if table in files:
                    raise InputError(f"{folder}: has {files[table].name} and {path.name}, expected one of them")
                files[table] = path
        missing = [f"{table.upper()}.csv" for table in _TABLES if table not in files]
        if missing:
            raise InputError(
                f"{folder}: has no {' and no '.join(missing)}, expected an unpacked download from athena.ohdsi.org"
            )
        self._folder = folder
        self._files = list(files.values())
        self._tables = {table: _relation(path) for table, path in files.items()}
        self._connection: duckdb.DuckDBPyConnection | None = None

    def atc(self, keys: Iterable[CodeKey]) -> dict[CodeKey, tuple[str, ...]]:
        """Return the ATC codes of codes in their systems' usual spelling; those without any are left out.

        A ten-digit NDC is looked up with the zero that it lacks in each of the three places where it can be; it counts
        if one of these is an NDC.

        Raises:
            InputError: a table is damaged or lacks a column, or has no concepts of ATC's fifth level.
        """
        wanted: dict[CodeKey, list[CodeKey]] = {}  # what is looked up, and for which of the given keys
        for system, code in dict.fromkeys(keys):
            if system in _VOCABULARIES.values():
                for form in ndc_forms(code) if system == "ndc" else (code,):
                    wanted.setdefault((system, form), []).append((system, code))
        if not wanted:
            return {}
        query = (
            "SELECT system, code, list_sort(list(DISTINCT drug)) FROM codes "
            "JOIN (SELECT unnest($1::VARCHAR[]) AS system, unnest($2::VARCHAR[]) AS code) USING (system, code) "
            "GROUP BY system, code"
        )
        with self._reading():
            rows = self._codes().execute(query, list(map(list, zip(*wanted, strict=True)))).fetchall()
        found: dict[CodeKey, list[tuple[str, ...]]] = {}
        for system, code, drugs in rows:
            for key in wanted[system, code]:
                found.setdefault(key, []).append(tuple(drugs))
        return {key: ways[0] for key, ways in found.items() if len(ways) == 1}

    def _codes(self) -> "duckdb.DuckDBPyConnection":
        """Return the database, with the table ``codes``: a row per code and ATC code of a drug."""
        if self._connection is None:
            connection = database.connect(self._files)
            self._add_concepts(connection.execute)
            self._add_codes(connection.execute)
            self._connection = connection
        return self._connection

    def _add_concepts(self, execute: "Callable[[str], duckdb.DuckDBPyConnection]") -> None:
        """Make the table ``drugs``: a row per concept and ATC code of it."""
        execute(
            f"CREATE TABLE fifth_level AS SELECT concept_id, upper(trim(concept_code)) AS code "
            f"FROM {self._tables['concept']} WHERE vocabulary_id = 'ATC' AND concept_class_id = 'ATC 5th'"
        )
        if not execute("SELECT count(*) FROM fifth_level").fetchall()[0][0]:
            raise InputError(
                f"{self._folder}: CONCEPT has no concepts of ATC's fifth level; download the vocabularies from "
                "athena.ohdsi.org again with ATC and RxNorm ticked, and RxNorm Extension and NDC as needed"
            )
        execute(
            "CREATE TABLE drugs AS SELECT DISTINCT descendant_concept_id AS concept_id, fifth_level.code "
            f"FROM {self._tables['concept_ancestor']} JOIN fifth_level ON ancestor_concept_id = fifth_level.concept_id"
        )
        execute(
            "INSERT INTO drugs SELECT DISTINCT mapped.concept_id_1, standard.code "
            f"FROM {self._tables['concept_relationship']} AS mapped "
            "JOIN drugs AS standard ON mapped.concept_id_2 = standard.concept_id "
            "WHERE mapped.relationship_id = 'Maps to' AND coalesce(mapped.invalid_reason, '') = '' "
            "AND mapped.concept_id_1 NOT IN (SELECT concept_id FROM drugs)"
        )

    def _add_codes(self, execute: "Callable[[str], duckdb.DuckDBPyConnection]") -> None:
        names = ", ".join(map(database.quoted, _VOCABULARIES))
        systems = " ".join(f"WHEN {database.quoted(a)} THEN {database.quoted(b)}" for a, b in _VOCABULARIES.items())
        execute(
            f"CREATE TABLE codes AS SELECT CASE vocabulary_id {systems} END AS system, trim(concept_code) AS code, "
            f"drugs.code AS drug FROM {self._tables['concept']} AS concepts JOIN drugs USING (concept_id) "
            f"WHERE vocabulary_id IN ({names})"
        )

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Turn DuckDB's errors into one line that names the file."""
        import duckdb

        try:
            yield
        except duckdb.Error as error:
            raise InputError(f"{self._folder}: cannot be read: {str(error).splitlines()[0]}") from None


def _relation(path: Path) -> str:
    """Return the SQL relation of a table's file, its columns by their names in any letter case.

    Raises:
        InputError: it cannot be read, or has no header.
    """
    check_gzip([path])
    check_parquet([path], OUT_OF_CORE)
    if path.suffix.lower() == ".parquet":
        return f"read_parquet({database.file_list([path])})"
    try:
        with open_bounded(path) as file:
            header = file.readline(_LONGEST).decode("utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    by_tabs = "\t" in header  # as Athena writes it: nothing is quoted, and names may hold quotes
    names = [name.strip().strip('"').lower() for name in header.split("\t" if by_tabs else ",")]
    if len(names) < 2:
        raise InputError(f"{path}: has no header, expected columns that are separated by tabs or commas")
    types = ", ".join(
        f"{database.quoted(name)}: {database.quoted('BIGINT' if name in _NUMBERS else 'VARCHAR')}" for name in names
    )
    dialect = "delim = '\t', quote = '', escape = ''" if by_tabs else "delim = ',', quote = '\"', escape = '\"'"
    return (
        f"read_csv({database.file_list([path])}, header = true, auto_detect = false, {dialect}, columns = {{{types}}})"
    )
