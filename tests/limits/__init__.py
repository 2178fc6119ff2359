"""Section 9: limits."""
