"""The dashboard without Grafana: Prometheus beside the demo, the dashboard's queries, a picture of the answers.

Not part of the package: the tests use it, and `make dashboard-picture`.
"""
