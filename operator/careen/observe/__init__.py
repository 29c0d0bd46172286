"""Metrics and logs: every figure the operator shows is defined here."""
