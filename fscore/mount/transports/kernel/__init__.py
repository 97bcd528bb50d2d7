"""Our own transport over /dev/fuse: Linux only, without libfuse and without a compiler.

`session.serve` is the way in. `protocol` and `wire` are the protocol as bytes (pure); `requests` and `requests_files`
decode, call and encode; `worker` is one thread that reads and answers, `waiters` are programs that wait for locks;
`mounting` asks the kernel or fusermount3 for the mount; `notify` tells the kernel what to forget; `backing` registers
local files that it shall read by itself.
"""
