"""One process among several: its settings, its start, its end, and who takes over."""
