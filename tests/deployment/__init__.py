"""The way from a commit to running containers. No Docker engine is needed: what can be done by hand is done by hand."""
