"""Rehearsing an agent's bad days: faults injected into its vendors, what the caller heard of them."""
