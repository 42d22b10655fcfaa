"""Models in Python: load one, and give it patients as you have them."""

from exmed_bert.interface.model import PatientModel, load_model
from exmed_bert.interface.scikit_learn import PatientEmbedder
from exmed_bert.interface.tokenizer import PatientTokenizer

__all__ = ["PatientEmbedder", "PatientModel", "PatientTokenizer", "load_model"]
