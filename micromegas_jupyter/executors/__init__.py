"""A pool of processes that plan and run one statement each, so that none can hurt another.

`pool` is the front's side: it lends executors, ends them and replaces them. `statements` is one call's use of it,
`zygote` the process that executors are forked from, `worker` what runs in one, `protocol` what front and executor send
each other.
"""
