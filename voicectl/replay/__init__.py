"""A recorded call runs again: the same pipeline, recorded providers, the virtual clock."""
