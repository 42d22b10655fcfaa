"""What the concepts of an OMOP CDM say: the code of each in its vocabulary, and the ATC codes that stand above a drug.

From the vocabulary tables CONCEPT and CONCEPT_ANCESTOR, which may be those of the CDM, a download from
https://athena.ohdsi.org, or both.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from exmed_bert.codes import code_system
from exmed_bert.console import InputError
from exmed_bert.data.database import quoted
from exmed_bert.data.readers.headers import text_header
from exmed_bert.data.readers.source import Source
from exmed_bert.data.readers.table import Table

if TYPE_CHECKING:
    import duckdb

CONCEPT, ANCESTOR = "concept", "concept_ancestor"
_COLUMNS = {
    CONCEPT: ("concept_id", "vocabulary_id", "concept_class_id", "concept_code"),
    ANCESTOR: ("ancestor_concept_id", "descendant_concept_id"),
}
_EXTENSIONS = {"RxNorm Extension": "rxnorm"}  # to a code system, by OHDSI
_OTHERS = {"ICD10": "ICD10 (WHO)"}  # vocabularies with a name of one of our systems that are others
_FIFTH = "vocabulary_id = 'ATC' AND concept_class_id = 'ATC 5th'"
_DIAGNOSIS = "vocabulary_id IN ('ICD10CM', 'ICD9CM')"  # few enough to have them all


class Concepts:
    """The concepts that a CDM uses, in the database.

    The table ``omop_concepts`` has a row per concept: ``concept_id``, ``vocabulary``, ``system`` (a code system, NULL
    for a vocabulary that is none of ours), ``code``, and ``drugs``, the ATC codes of the fifth level above it in their
    order, NULL where there are none. The table ``omop_descendants`` has the concepts below given ones.
    """

    def __init__(self, db: "duckdb.DuckDBPyConnection", sources: Sequence[Source]) -> None:
        """Find the vocabulary tables; nothing is read.

        Args:
            db: the connection.
            sources: where they may be; of a concept that is in several, the first counts.

        Raises:
            InputError: a table is damaged, or lacks a column.
        """
        self._db = db
        self._tables: dict[str, list[Table]] = {}
        for table, columns in _COLUMNS.items():
            found = [_vocabulary_table(db, source, table, columns) for source in sources if table in source.tables]
            self._tables[table] = found

    def add(self, used: str, ancestors: Sequence[int]) -> None:
        """Make the tables.

        Args:
            used: SELECT of ``concept_id``: the concepts that are wanted.
            ancestors: concepts whose descendants are wanted.
        """
        db = self._db
        db.execute(f"CREATE TABLE omop_used AS SELECT DISTINCT concept_id FROM ({used})")
        db.execute(
            "CREATE TABLE omop_listed (concept_id BIGINT, vocabulary_id VARCHAR, concept_class_id VARCHAR, "
            "concept_code VARCHAR, place INTEGER)"
        )
        for place, table in enumerate(self._tables[CONCEPT]):
            columns = ", ".join(f"{table.text(column)} AS {column}" for column in _COLUMNS[CONCEPT][1:])
            db.execute(
                f"INSERT INTO omop_listed SELECT *, {place} FROM (SELECT {concept_id(table, 'concept_id')} AS "
                f"concept_id, {columns} FROM {table.sql}) "
                f"WHERE concept_id IN (SELECT concept_id FROM omop_used) OR {_FIFTH} OR {_DIAGNOSIS}"
            )
        self._add_ancestors(ancestors)
        listed = db.sql("SELECT DISTINCT vocabulary_id FROM omop_listed WHERE vocabulary_id IS NOT NULL").fetchall()
        systems = {vocabulary: system for (vocabulary,) in listed if (system := system_of(vocabulary))}
        db.execute(
            f"CREATE TABLE omop_concepts AS SELECT concept_id, {_case('vocabulary_id', _OTHERS, 'vocabulary_id')} "
            f"AS vocabulary, {_case('vocabulary_id', systems, 'NULL')} AS system, concept_code AS code, drugs "
            "FROM (SELECT DISTINCT ON (concept_id) * FROM omop_listed ORDER BY concept_id, place, vocabulary_id, "
            "concept_code) LEFT JOIN (SELECT d.concept_id, list_sort(list(DISTINCT l.concept_code)) AS drugs "
            f"FROM omop_descendants d JOIN omop_listed l ON d.ancestor = l.concept_id WHERE {_FIFTH} "
            "GROUP BY d.concept_id) USING (concept_id)"
        )

    def missing_for_atc(self) -> str | None:
        """Return what the tables lack to lead from drugs to ATC, None where it is all there; after `add`."""
        if not self._tables[CONCEPT]:
            return "there is no table CONCEPT"
        if not self._db.sql(f"SELECT count(*) FROM omop_listed WHERE {_FIFTH}").fetchall()[0][0]:
            return "CONCEPT has no concepts of ATC's fifth level"
        return None if self._tables[ANCESTOR] else "there is no table CONCEPT_ANCESTOR"

    def _add_ancestors(self, ancestors: Sequence[int]) -> None:
        """Make ``omop_descendants``: used concepts below ATC's fifth level, and all below the given ones."""
        self._db.execute("CREATE TABLE omop_descendants (ancestor BIGINT, concept_id BIGINT)")
        given = ", ".join(map(str, ancestors))
        for table in self._tables[ANCESTOR]:
            above, below = (concept_id(table, column) for column in _COLUMNS[ANCESTOR])
            self._db.execute(
                f"INSERT INTO omop_descendants SELECT * FROM (SELECT {above} AS ancestor, {below} AS concept_id "
                f"FROM {table.sql}) WHERE ancestor IN ({given}) OR (concept_id IN (SELECT concept_id FROM omop_used) "
                f"AND ancestor IN (SELECT concept_id FROM omop_listed WHERE {_FIFTH}))"
            )


def _case(column: str, values: Mapping[str, str], otherwise: str) -> str:
    whens = " ".join(f"WHEN {quoted(key)} THEN {quoted(value)}" for key, value in values.items())
    return f"CASE {column} {whens} ELSE {otherwise} END::VARCHAR" if whens else f"{otherwise}::VARCHAR"


def concept_id(table: Table, column: str) -> str:
    """Return a column of concept ids as whole numbers, NULL where the table has none or a value is none."""
    return f"TRY_CAST({table.raw(column)} AS BIGINT)"


def _vocabulary_table(db: "duckdb.DuckDBPyConnection", source: Source, name: str, columns: Sequence[str]) -> Table:
    paths = source.tables[name]
    # In Athena's files, which tabs separate, nothing is quoted, and names hold quotation marks.
    text = not paths[0].name.lower().endswith(".parquet")
    unquoted = {"quote": "''", "escape": "''"} if text and text_header(paths[0])[0] == "\t" else {}
    table = Table(db, name, paths, **unquoted)
    if missing := [column for column in columns if not table.has(column)]:
        raise InputError(f"{paths[0]}: lacks {', '.join(missing)}, which the OMOP table {name.upper()} has")
    return table


def system_of(vocabulary: str) -> str | None:
    """Return the code system of a vocabulary, None where it is none of ours.

    >>> system_of("ICD10CM"), system_of("SNOMED"), system_of("RxNorm Extension"), system_of("ICD10"), system_of("CVX")
    ('icd10cm', 'snomedct', 'rxnorm', None, None)
    """
    if vocabulary in _OTHERS:
        return None
    try:
        return _EXTENSIONS.get(vocabulary) or code_system(vocabulary).name
    except ValueError:
        return None
