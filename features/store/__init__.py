"""The feature store: what it says of itself, how it is written, read, checked and compared."""
