"""Commands for people: typer applications and their output."""
