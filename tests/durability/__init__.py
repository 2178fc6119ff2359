"""Section 8: what is never lost."""
