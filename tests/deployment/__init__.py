"""The way from a commit to running containers, with stand-ins for Docker; and the demo."""
