"""How a run's processes are started, watched, limited and ended."""
