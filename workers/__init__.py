"""The processes that keep vectors fresh: dispatcher, workers and the models they run."""
