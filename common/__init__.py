"""What every part leans on: kinds of error, logs, metrics, background tasks, limits, ids."""
