"""The synthetic population: who the patients are, what they have, when they are seen, novel codes."""
