"""Careen on kind: real kubelets in containers, each with a simulated machine: a disk image in a folder of its node."""
