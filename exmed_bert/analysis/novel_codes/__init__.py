"""Novel codes: where a model places codes that it has hardly seen, and how well it guesses them."""
