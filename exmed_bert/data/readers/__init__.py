"""Reading files of patients: a registry of readers, one module per format."""

from exmed_bert.data.readers.registry import READERS, reader_of

__all__ = ["READERS", "reader_of"]
