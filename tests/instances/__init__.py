"""Section 7: more than one instance."""
