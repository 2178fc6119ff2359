"""A day of visitors in an hour, faults included, and whether anything is lost or left behind."""
