"""What stands on the internet: input, origins, abuse, and what must not get out."""
