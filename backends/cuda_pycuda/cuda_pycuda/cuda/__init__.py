"""Holds the CUDA C sources, as package data."""
