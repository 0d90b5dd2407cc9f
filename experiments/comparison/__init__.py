"""What `experiments.compare` is made of: studies, cells, runs, statistics, tables."""
