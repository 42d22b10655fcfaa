"""The published figures that patients are drawn from and compared with: tables as data, and their validated loader."""
