"""Wrappers that are providers: each takes one, or several, of a stage and fulfils its protocol again.

All on the Clock; every decision is an event of the call. What is learned of a vendor (a breaker's
state, how late it usually is) is shared by all calls; what is decided belongs to one.
"""
