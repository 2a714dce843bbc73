"""Bringing a database to this release's schema: make it, upgrade it, or refuse a newer one."""

from sqlalchemy import Column, Connection, MetaData, String, Table, inspect, select

from atoll.errors import Refused
from federation.store.tables import metadata

REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007")
"""All schema revisions, oldest first; each has a file in `migrations/versions`."""

# Alembic's own table, spelled out so that a fresh database needs no alembic in memory.
_stamp = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))


def prepare(connection: Connection, place: str) -> None:
    """Make or upgrade the schema inside the connection's open transaction.

    Raises `Refused` for a database of a newer release, and for one that holds other tables of our names.
    """
    tables = set(inspect(connection).get_table_names())
    if _stamp.name in tables:
        _bring_up(connection, connection.execute(select(_stamp.c.version_num)).scalar_one_or_none(), place)
        return
    clashes = sorted(tables & set(metadata.tables))
    if clashes:
        raise Refused(
            f"the database {place} holds a table {clashes[0]!r} that Atoll did not make",
            hint="give Atoll a database of its own",
        )
    metadata.create_all(connection, checkfirst=False)
    _stamp.create(connection)
    connection.execute(_stamp.insert().values(version_num=REVISIONS[-1]))


def _bring_up(connection: Connection, revision: str | None, place: str) -> None:
    if revision == REVISIONS[-1]:
        return
    if revision is not None and revision not in REVISIONS:
        raise Refused(
            f"the database {place} was written by a newer Atoll (schema {revision}; this one has {REVISIONS[-1]})",
            hint="install that release or a later one, or restore the backup made before the upgrade",
        )
    # Only here, because alembic costs memory that a running control plane should not hold.
    from federation.store.migrations.upgrade import upgrade

    upgrade(connection)
