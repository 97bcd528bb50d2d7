"""Files that lie whole on the local disk, one for each content: what the kernel can read and map by itself.

Way in: `cache.WholeCache`. `layout` says what content is, `assembly` fills a file, `record` proves it, `file` reads it.
Knows slices and blocks, neither inodes nor paths.
"""
