"""How many machines so many visitors need, what gives out first, and how long it takes when much breaks at once."""
