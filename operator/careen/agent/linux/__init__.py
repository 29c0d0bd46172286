"""A real Linux machine as the agent's host: partitions, kexec, systemd, watchdog."""
