"""snnseg: directly trained spiking networks for semantic segmentation."""

__version__ = "0.1.0"
