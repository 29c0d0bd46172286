"""Careen: operating systems that update themselves across a cluster."""

__version__ = "0.1.0"
