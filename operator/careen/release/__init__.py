"""Releases of the OS: what a repository offers."""
