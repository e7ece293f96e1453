"""The steps of sparse training made fast: one interface, made in PyTorch, in C, and in Triton."""
