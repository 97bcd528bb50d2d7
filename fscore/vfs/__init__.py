"""Inodes and handles: the only floor where records of the tree meet the bytes of blocks.

`vfs.Vfs` is the way in. A write is buffered, cut into slices, uploaded, and only then committed (blocks first, slice
after); a read asks the chunk view for pieces and the blocks for their bytes. Knows no paths.
"""
