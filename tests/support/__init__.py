"""What the tests stand on: a PostgreSQL, gateways as processes, stub backends, chatting visitors."""
