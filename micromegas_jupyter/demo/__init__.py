"""The whole system on one machine, to try everything without installing anything else."""
