"""A real MariaDB for tests, where ``mariadbd`` is on the PATH; nothing else of it is needed."""

import contextlib
import functools
import os
import shutil
import subprocess
from pathlib import Path

from real_servers import Server

PROGRAM = shutil.which("mariadbd")


class MariadbServer(Server):
    """MariaDB that lets everybody in, on the loopback."""

    def new_database(self, name):
        """Create an empty database; returns its settings for Django."""
        with contextlib.closing(self._connect()) as connection:
            connection.cursor().execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        return self.settings(name)

    def settings(self, name):
        """Django's settings of a database."""
        return {
            "ENGINE": "django.db.backends.mysql",
            "NAME": name,
            "USER": "root",
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "OPTIONS": {"charset": "utf8mb4"},
        }

    def _command(self):
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        base = Path(PROGRAM).resolve().parents[1]
        options = {
            "basedir": base,
            "datadir": data,
            "bind-address": "127.0.0.1",
            "port": self.port,
            "socket": self.folder / "socket",
            "innodb-flush-log-at-trx-commit": 0,
        }
        user = ["--user=root"] if os.geteuid() == 0 else []
        given = [f"--{name}={value}" for name, value in options.items()]
        return [PROGRAM, "--no-defaults", "--skip-grant-tables", "--skip-name-resolve", *given, *user]

    def _answers(self):
        import pymysql

        try:
            self._connect().close()
        except pymysql.err.OperationalError:
            return False
        return True

    def _connect(self):
        import pymysql

        return pymysql.connect(host="127.0.0.1", port=self.port, user="root", connect_timeout=2)


@functools.cache
def mariadb():
    """The MariaDB of this session; Django talks to it through PyMySQL."""
    import pymysql

    pymysql.install_as_MySQLdb()
    subprocess.run([PROGRAM, "--version"], check=True, capture_output=True)
    return MariadbServer()
