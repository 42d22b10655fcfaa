"""Report on a file of patients: counts compared with published values, as plots and a page."""
