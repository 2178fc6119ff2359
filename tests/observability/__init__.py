"""Whoever runs it at night sees how it is: metrics, logs, readiness, the check at start, a restart behind a proxy."""
