"""A page about one patient: visits, codes, the risk as it develops, and what moves it."""
