"""Models that leave the project: copies that can be given away, and exports for other programs."""
