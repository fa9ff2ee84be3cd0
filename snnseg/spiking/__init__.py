"""The neuron maths: pure torch over a leading time axis. Knows no config and no files."""
