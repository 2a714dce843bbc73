"""The control plane: one ring of all sites."""
