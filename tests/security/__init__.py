"""What stands on the internet: hostile input, abuse, and what must not get out."""
