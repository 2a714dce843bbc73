"""What this machine has: cpu, memory, GPUs, notices of its end."""
