"""The processes that keep vectors fresh: dispatcher, workers and the models they run."""

import os

# OpenMP reads this when torch is imported, which nothing in this package does earlier. Its threads otherwise spin while
# they wait for each other: where others used the two cores too, a title took 13 ms of CPU time instead of 2, and
# a batch eight times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
