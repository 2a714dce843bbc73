"""A pretend cloud on this machine whose instances are real agent processes."""
