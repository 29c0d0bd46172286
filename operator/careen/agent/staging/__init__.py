"""Writing a release to the passive slot: only what is not there already, checked block by block."""
