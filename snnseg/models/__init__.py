"""Spiking-DeepLab, Spiking-FCN and their ANN twins."""
