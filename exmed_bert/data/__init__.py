"""Patients: the record, files of patients, vocabularies, encoding, the dataset, masking and batches."""
