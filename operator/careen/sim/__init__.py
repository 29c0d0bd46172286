"""Whole rollouts in memory: plan, agents, locks and an API server, from a seed and without real time."""
