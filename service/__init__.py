"""One process among others: instance, heartbeat, readiness, checks; what uvicorn leaves open."""
