"""The kernel edge: a volume as a directory of this machine.

`api` has the types that cross the edge, `operations.Operations` one method per request of FUSE (it knows vfs and no
transport), `transports` what carries requests between the kernel and the operations.
"""
