"""The kernel edge (FUSE). Empty until the mount is built."""
