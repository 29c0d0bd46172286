"""The verbs of `careen unit`: choosing, changing, waiting, showing, and ways to a machine."""
