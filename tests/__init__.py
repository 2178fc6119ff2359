"""What the gateway promises, tested from the outside: real processes, sockets and databases."""
