"""Amazon EC2 through boto3: see `docs/providers.md` for what it needs and how it was tested."""
