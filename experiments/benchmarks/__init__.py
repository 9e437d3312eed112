"""What a step costs here and in PyTorch: the parts of `experiments.benchmark`."""
