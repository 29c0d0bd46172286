"""Pure decisions: a snapshot and an instant in, actions and explanations out. No I/O, no clock, no randomness."""
