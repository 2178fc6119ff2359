"""What holds for every path of the REST interface, and its description."""
