"""Load: which callers call, how many at once, and what became of each call."""
