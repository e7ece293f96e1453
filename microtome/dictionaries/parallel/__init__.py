"""Many processes fit one dictionary, or each its own from one stream."""
