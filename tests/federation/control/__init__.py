"""Tests of the control plane core over fakes: memory store, memory network, scripted agents."""
