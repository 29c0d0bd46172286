"""A real control plane on loopback, with simulated nodes: what the demo and most tests run on."""
