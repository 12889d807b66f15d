"""From videos to rows: encoders, decoding, batches, actors."""
