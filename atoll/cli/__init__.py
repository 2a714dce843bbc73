"""`atoll`: a client of the API; each command is imported when it is called."""
