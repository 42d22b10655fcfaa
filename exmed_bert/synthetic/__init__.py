"""The synthetic population: reference tables, who the patients are, what they have, when they are seen, novel codes."""
