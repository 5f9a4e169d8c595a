"""A local server that speaks the vendors' wire protocols to their real SDKs, and misbehaves on demand.

One file a vendor; what they say and how late is `server`'s business, what goes wrong `faults`'.
Knows nothing of our providers: whoever speaks a vendor's protocol is served.
"""
