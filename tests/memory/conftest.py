"""A PostgreSQL server for the tests of this room, and databases that stores lie in: SQLite's, and the server's."""

from collections.abc import Iterator

import pytest

from lcdoc.memory.database import Database
from lcdoc.memory.store import Store
from lcdoc.tests.servers.postgres import PostgresServer, programs


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for all tests. Whoever stops it starts it again."""
    pytest.importorskip("psycopg", reason="needs psycopg: pip install 'lcdoc[postgres]'")
    if programs() is None:
        pytest.skip("PostgreSQL is not installed (no `postgres` on the path, none in /usr/lib/postgresql)")
    with PostgresServer() as server:
        yield server


@pytest.fixture
def shared(postgres: PostgresServer) -> str:
    """The address of a database on the server, in which is nothing."""
    return postgres.emptied()


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path) -> Iterator[Store]:
    """A new database of either kind: what is tested over it holds on one machine and on many."""
    if request.param == "sqlite":
        with Database(tmp_path / "library.sqlite") as opened:
            yield opened
        return
    from lcdoc.memory.postgres import PostgresDatabase

    with PostgresDatabase(request.getfixturevalue("shared")) as opened:
        yield opened
