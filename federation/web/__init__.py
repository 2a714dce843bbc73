"""The pages: server-rendered, updated live by a few lines of script."""
