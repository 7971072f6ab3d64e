"""The same training side by side: kcnn, a stock Keras script, PyTorch, and the roof."""
