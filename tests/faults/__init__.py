"""The fault matrix: something breaks under load, and nothing is lost or doubled."""
