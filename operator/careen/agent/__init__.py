"""The agent: one on each machine. `step` decides (pure), a host obeys, `runner` brings both together."""
