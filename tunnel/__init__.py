"""The tunnel: one outbound TLS connection per agent carries control messages and users' streams."""
