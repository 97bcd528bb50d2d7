"""What programs see: paths, open files, walks, composition.

The way in is `files.filesystem.Filesystem`; names are `str` from here up (surrogateescape carries bytes that are no
UTF-8). Knows inodes only through `vfs`, and no objects.
"""
