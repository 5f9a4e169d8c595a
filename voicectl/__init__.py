"""voicectl: build, run and benchmark voice agents.

The package root holds the version and nothing else, so that `voicectl --help` stays instant.
"""

__version__ = "0.1.0"
