"""Measurements on a host, with or without a dictionary. Each is a function that returns a frozen result."""
