"""Writing patients as datasets of other formats: one module per format, and what an export says of their origin."""
