"""Our own transport over /dev/fuse: Linux only, without libfuse and without a compiler.

`session.serve` is the way in. `wire` is the protocol as bytes (pure), `requests` decodes, calls, encodes; `worker` is
one thread that reads and answers; `mounting` asks the kernel or fusermount3 for the mount; `notify` tells the kernel
what to forget; `backing` registers local files that it shall read by itself.
"""
