"""The systemd units that a machine holds: what is ordered, what systemd has, and what is to be done about it."""
