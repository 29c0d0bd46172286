"""Everything that talks to the API server, and knows nothing of policy. Bodies are plain dicts throughout."""
