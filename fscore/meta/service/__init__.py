"""What the floors above ask of the tree: one operation each, over `meta.ops`. Way in: `MetaService.open`.

core        runs operations: transaction, cache, limits, statistics; permission to write at all
lookups     paths, attributes, directories
names       entries: create, link, unlink, rename ...
attributes  extended attributes and ACLs
data        lengths, slices, composition, open files
locks       of files, whole and by ranges
clones      files and trees that share slices
upkeep      heartbeat, sessions of others, trash, deletion of data
api         MetaService: all of it, with format, open and close
"""

from fscore.meta.ops.change import NOW, AttrChange
from fscore.meta.ops.data import FreshSlice, Hole, SliceRange
from fscore.meta.ops.rename import RenameFlag
from fscore.meta.records import StatFs
from fscore.meta.service.api import MetaService
from fscore.meta.service.core import AtimeMode
from fscore.meta.service.lookups import Summary

__all__ = [
    "NOW",
    "AtimeMode",
    "AttrChange",
    "FreshSlice",
    "Hole",
    "MetaService",
    "RenameFlag",
    "SliceRange",
    "StatFs",
    "Summary",
]
