"""Speed and memory against the physical limit of each stage, as ratios measured in one run."""
