"""The relay: a process that carries users' streams to agents, in front of one control plane."""
