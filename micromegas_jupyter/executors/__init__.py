"""A pool of processes that plan and run one statement each, so that none can hurt another."""
