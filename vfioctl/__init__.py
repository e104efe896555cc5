"""Administer VFIO device assignment on Linux."""

__version__ = "0.1.0"
