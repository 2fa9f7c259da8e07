"""A real PostgreSQL server of this test run's own: in a temporary folder, on a free port, gone at the end.

PostgreSQL refuses to run as root, so root's tests run it as another user.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from itertools import count
from pathlib import Path
from typing import Any

USER, PASSWORD = "keeper", "lamp oil/1%"
_PATIENCE_S = 60.0
_ACCOUNTS = ("postgres", "nobody")


def programs() -> Path | None:
    """The folder with `initdb` and `postgres`; None where PostgreSQL is not installed."""
    folders = [Path(found).resolve().parent for found in [shutil.which("postgres")] if found]
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


class PostgresServer:
    """Started with its context, and stopped at its end. `stop` and `start` in between keep its data and its port.

    `durable`: what is committed is on the disk. In tests it need not be, since only processes die there.
    """

    def __init__(self, *, durable: bool = False) -> None:
        self._durable = durable
        found = programs()
        if found is None:
            raise RuntimeError("PostgreSQL is not installed")
        self._programs = found
        self._numbers = count(1)
        self._reused: str | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> PostgresServer:
        self._folder = Path(tempfile.mkdtemp(prefix="lcdoc-pg-"))
        password = self._folder / "password"
        password.write_text(PASSWORD)
        self._account: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._account = _another_account()
            for path in (self._folder, password):
                os.chown(path, self._account["user"], self._account["group"])
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        try:
            self._run(
                "initdb", "--pgdata", "data", "--no-sync", "--username", USER, "--auth", "scram-sha-256",
                "--pwfile", "password", "--encoding", "UTF8", "--locale", "C.UTF-8",
            )  # fmt: skip
            self.start()
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop(at_once=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def url(self, database: str = "postgres", *, user: str = USER, password: str = PASSWORD) -> str:
        """The address of a database here, password and all."""
        from urllib.parse import quote

        return f"postgresql://{user}:{quote(password, safe='')}@127.0.0.1:{self.port}/{database}"

    def database(self) -> str:
        """The address of a new, empty database."""
        import psycopg

        name = f"test{next(self._numbers)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)

    def emptied(self) -> str:
        """The address of a database of which nobody needs the rows any more: as good as a new one, and had sooner."""
        import psycopg

        if self._reused is None:
            self._reused = self.database()
            return self._reused
        with psycopg.connect(self._reused) as connection:
            tables = connection.execute(
                "SELECT string_agg(format('DELETE FROM %I.%I', schemaname, tablename), '; ') FROM pg_tables"
                " WHERE schemaname = 'lcdoc' AND tablename NOT IN ('meta', 'checkpoint_migrations')"
            ).fetchone()
            if tables and tables[0]:
                connection.execute(b"SET session_replication_role = replica")  # in any order
                connection.execute(tables[0].encode())
                connection.execute(b"DELETE FROM lcdoc.meta WHERE key NOT IN ('schema', 'checkpoints')")
        return self._reused

    def start(self) -> None:
        """Start it, and wait until it answers."""
        import psycopg

        # The settings are the tests', not advice.
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "on" if self._durable else "off",
            "max_connections": 60,
            "shared_buffers": "16MB",
        }
        options = [f"-c{name}={value}" for name, value in settings.items()]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", "data", *options],
                cwd=self._folder,
                stdout=log,
                stderr=log,
                **self._account,
            )
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                psycopg.connect(self.url(), connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"PostgreSQL does not start: {self.log()}") from None
                time.sleep(0.02)

    def stop(self, *, at_once: bool = False) -> None:
        """Stop it; `at_once` as a crash does it, without a last word to those connected."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT if at_once else signal.SIGINT)
            self._process.wait(_PATIENCE_S)
            self._process = None

    def log(self) -> str:
        """What the server said so far."""
        return (self._folder / "log").read_text(encoding="utf-8", errors="replace")

    def _run(self, program: str, *arguments: str) -> None:
        command = [self._programs / program, *arguments]
        done = subprocess.run(command, cwd=self._folder, capture_output=True, text=True, check=False, **self._account)
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr or done.stdout}")


def _another_account() -> dict[str, Any]:
    """Arguments of `subprocess` that leave root."""
    import pwd

    for name in _ACCOUNTS:
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
    raise RuntimeError(f"PostgreSQL does not run as root, and there is none of the users {', '.join(_ACCOUNTS)}")
