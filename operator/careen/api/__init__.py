"""The kinds of careen.dev/v1alpha1 as pydantic models, the words they share, and the CRDs made from them."""
