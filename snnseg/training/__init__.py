"""Backpropagation through time: the loop, its checkpoints and what it reports."""
