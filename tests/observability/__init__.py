"""Whoever runs it at night sees how it is: metrics, logs, readiness, the dashboard."""
