"""Official prediction and annotation files, scored by the rules of `features/metrics`."""
