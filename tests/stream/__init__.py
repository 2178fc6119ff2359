"""Answers shown while they are being made, and stopped."""
