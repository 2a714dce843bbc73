"""The pretend cloud: real machine processes on this machine, with prices, slow boots and injectable faults."""
