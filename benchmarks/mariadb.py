"""The peer MariaDB: an instance of its own, with deployments as PipeCD lays them out in MySQL.

A table of JSON, an id of sixteen bytes, columns generated from the JSON, three of them stored, and the indexes that
PipeCD has on deployments: there is none on project and status together. The instance lives in a directory, answers on a
socket in it, and holds everything in its buffer pool.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import UUID

START_S = 60
BATCH = 1_000
TEXTS = ("project_id", "application_id", "application_name", "piped_id", "deployment_chain_id")
NUMBERS = ("kind", "status", "completed_at", "created_at", "updated_at")
STORED = ("project_id", "created_at", "updated_at")
INDEXES = (
    "application_id, updated_at DESC",
    "application_name, updated_at DESC",
    "project_id, updated_at DESC",
    "kind, updated_at DESC",
    "status, updated_at DESC",
    "piped_id",
    "completed_at DESC, id",
    "deployment_chain_id, updated_at DESC",
)
FIND = "SELECT data FROM deployment WHERE project_id = %s ORDER BY updated_at DESC, id LIMIT 30"
FIND_STATUS = "SELECT data FROM deployment WHERE project_id = %s AND status = %s ORDER BY updated_at DESC, id LIMIT 30"
FIND_DEEP = (
    "SELECT data FROM deployment WHERE project_id = %s AND updated_at <= %s AND NOT (updated_at = %s AND id <= %s)"
    " ORDER BY updated_at DESC, id LIMIT 30"
)


def missing() -> str:
    """What is not installed here; "" where all is."""
    if not (shutil.which("mariadbd") and shutil.which("mariadb-install-db")):
        return "mariadb-server is not installed"
    return "" if find_spec("pymysql") else "pymysql is not installed"


def version() -> str:
    """What is installed here; "" where nothing is."""
    if missing():
        return ""
    said = subprocess.run(["mariadbd", "--no-defaults", "--version"], capture_output=True, text=True, check=True).stdout
    return said.split("Ver ")[1].split("-")[0]


@contextmanager
def instance(directory: Path) -> Iterator[MariaDB]:
    """Bring one up in a directory, and take it down again."""
    data, socket = directory / "data", directory / "socket"
    user = ["--user=root"] if os.getuid() == 0 else []
    with (directory / "output").open("wb") as output:
        install = ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--skip-test-db", *user]
        subprocess.run([*install, "--auth-root-authentication-method=normal"], stdout=output, stderr=output, check=True)
        options = ["--skip-networking", "--innodb-buffer-pool-size=1G", "--innodb-flush-log-at-trx-commit=0"]
        command = ["mariadbd", "--no-defaults", f"--datadir={data}", f"--socket={socket}", *options, *user]
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            database = MariaDB(_connect(socket, process))
            yield database
            database.close()
        finally:
            process.terminate()
            process.wait(timeout=START_S)


def _connect(socket: Path, process: subprocess.Popen[bytes]) -> Any:
    import pymysql

    deadline = time.monotonic() + START_S
    while not socket.exists():  # it is there once the instance listens
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"MariaDB does not come up output={socket.parent / 'output'}")
        time.sleep(0.1)
    return pymysql.connect(unix_socket=str(socket), user="root", autocommit=True)


class MariaDB:
    """Deployments in a table."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._cursor = connection.cursor()

    def store(self, documents: Iterable[Mapping[str, Any]]) -> None:
        """Fill the table, then index it."""
        execute = self._cursor.execute
        kinds = {**dict.fromkeys(TEXTS, ("VARCHAR(50)", "''")), **dict.fromkeys(NUMBERS, ("INT", "0"))}
        generated = [
            f"{name} {kind} AS (IFNULL(JSON_VALUE(data, '$.{name}'), {default}))"
            f" {'STORED' if name in STORED else 'VIRTUAL'}"
            for name, (kind, default) in kinds.items()
        ]
        execute("CREATE DATABASE bench")
        execute("USE bench")
        columns = ", ".join(["id BINARY(16) PRIMARY KEY", "data JSON NOT NULL", *generated])
        execute(f"CREATE TABLE deployment ({columns}) ENGINE=InnoDB")
        rows = [(UUID(document["id"]).bytes, json.dumps(document)) for document in documents]
        for start in range(0, len(rows), BATCH):
            self._cursor.executemany("INSERT INTO deployment (id, data) VALUES (%s, %s)", rows[start : start + BATCH])
        for number, fields in enumerate(INDEXES):
            execute(f"CREATE INDEX by_{number} ON deployment ({fields})")
        execute("ANALYZE TABLE deployment")
        self._cursor.fetchall()

    def select(self, query: str, values: tuple[object, ...]) -> list[str]:
        """Run a query, decode what it returns; the keys."""
        self._cursor.execute(query, values)
        documents = [json.loads(data) for (data,) in self._cursor.fetchall()]
        return [document["id"] for document in documents]

    def close(self) -> None:
        self._connection.close()
