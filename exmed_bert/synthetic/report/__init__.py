"""How close a file of patients comes to the published figures: counted, compared, drawn, and shown on a page."""
