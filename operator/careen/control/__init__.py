"""The operator: a kopf application around stores, the pure plan and a dumb executor."""
