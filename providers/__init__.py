"""Clouds that can make instances: the port, its errors, and a driver each."""
