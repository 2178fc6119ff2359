"""A conversation: prompts taken, put in line, answered, stored, delivered; pushes; sessions and their sockets."""
