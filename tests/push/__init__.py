"""A login and the recommendation that is pushed after it."""
