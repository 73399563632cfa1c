"""A pool of processes that plan and run one statement each, so that none can hurt another.

`pool` is the front's side: it lends executors to statements, ends and replaces them. `launcher` starts them, `zygote`
is the process that they are forked from, `worker` what runs in one, and `protocol` what front and executor send each
other.
"""
