"""Whole rollouts in memory: the plan, the agents' next steps, the locks and an API server, seeded, without real time."""
