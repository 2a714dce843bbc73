"""The only place that knows SQL: tables, repositories, migrations, log files."""
