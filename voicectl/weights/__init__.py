"""Model weights: which there are, where they come from, and the cache they are kept in.

What lives here: the table of known weights, the store that pulls, checks and removes them. What
must not: anything that loads or runs a model. Weights are data: an archive that carries them is
opened as a file and never installed or imported.
"""

from voicectl.weights.store import FileCheck, Status, Store, cache_dir, default_store, open_store
from voicectl.weights.table import WEIGHTS, Hub, LocalPath, PackageArchive, Part, Server, WeightFile, Weights, find

__all__ = [
    "WEIGHTS",
    "FileCheck",
    "Hub",
    "LocalPath",
    "PackageArchive",
    "Part",
    "Server",
    "Status",
    "Store",
    "WeightFile",
    "Weights",
    "cache_dir",
    "default_store",
    "find",
    "open_store",
]
