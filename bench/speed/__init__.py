"""`bench speed`: measurements of this machine, as ratios within one run."""
