"""The personas, and how they come into the database."""
