"""Reads and compares memory for the guards."""
