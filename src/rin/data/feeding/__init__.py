"""Examples on their way to the trainer: in memory or made ahead, in the order of a stream of batches."""
