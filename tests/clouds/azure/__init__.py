"""A pretend Azure: ARM's compute and network routes over loopback TLS, with machines that run their user data."""
