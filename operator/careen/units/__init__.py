"""Unit files as fleet read them: canonical text and hash, names, [X-Fleet], and the one model of requirements."""
