"""The one connection of a Redis ledger: bounded in time, made anew after a fault, no fork's business."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from paygent._forking import know_the_resolver
from paygent.ledger import LedgerError
from paygent.ledgers._redis_epoch import EPOCH_KEY, Epoch
from paygent.ledgers._urls import safe_url, without_secrets

log = logging.getLogger("paygent")

T = TypeVar("T")
Command = Sequence[Any]

CONNECT_S = 2.0
TRIP_S = 3.0  # the longest that Redis may keep us waiting for the next piece of an answer
_OLDEST = (6, 2)  # ZMSCORE, ZADD GT


class Link:
    """
    Sends batches of commands over one connection, opened on first use.

    Every batch begins with a look at the epoch, so that a Redis that lost its data is never asked anything
    else. Every operation must be harmless when it is done twice.
    """

    def __init__(self, url: str, epoch: Epoch, adopted: Callable[[Link], None]) -> None:
        _check(url)
        self.name = safe_url(url)
        self.is_cluster = False
        self._url = url
        self._epoch = epoch
        self._adopted = adopted  # called when an epoch begins
        pool = redis.ConnectionPool.from_url(
            url,
            protocol=2,
            socket_timeout=TRIP_S,
            socket_connect_timeout=CONNECT_S,
            client_name="paygent",
        )
        self._make = pool.connection_class
        self._options = {
            **pool.connection_kwargs,
            "protocol": 2,
            "decode_responses": False,
            "retry": Retry(NoBackoff(), 0),
        }
        self._connection: Any = None
        self._use = threading.RLock()
        self.answered = 0  # how often the server has answered

    def run(self, operation: Callable[[], T]) -> T:
        """
        Run *operation*, which talks by :meth:`trip`.

        Raises:
            LedgerError: Redis cannot be asked, does not answer in time, or has lost its data.
        """
        with self._use:
            for was_open in (self._connection is not None, False):
                try:
                    if self._connection is None:
                        self._open()
                    return operation()
                except redis.RedisError as error:
                    self._drop()
                    is_stale = isinstance(error, redis.ConnectionError) and was_open
                    if not is_stale:
                        raise self._error(error) from error
                except OSError as error:
                    self._drop()
                    raise self._error(error) from error
                except BaseException:
                    self._drop()  # whatever it watched is watched no more
                    raise
        raise AssertionError  # the second round ends above

    def trip(self, *commands: Command) -> list[Any]:
        """Send *commands* at once; returns their answers. Only within :meth:`run`."""
        epoch, *answers = self._send([("GET", EPOCH_KEY), *commands])
        self._epoch.check(self, epoch)
        return answers

    def raw(self, *commands: Command) -> list[Any]:
        """As :meth:`trip`, without a look at the epoch."""
        return self._send(commands)

    def close(self) -> None:
        """Close the connection; the next operation opens one."""
        with self._use:
            self._drop()
            self.answered = 0

    def forget_after_fork(self) -> None:
        """In the child: let go of the parent's socket without a word, the parent still uses it."""
        self._use = threading.RLock()
        connection, self._connection = self._connection, None
        sock = getattr(connection, "_sock", None)
        if sock is not None:
            with contextlib.suppress(OSError):
                null = os.open(os.devnull, os.O_RDWR)
                os.dup2(null, sock.fileno(), inheritable=False)
                os.close(null)

    def _send(self, commands: Sequence[Command]) -> list[Any]:
        connection = self._connection
        connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        answers = [connection.read_response() for _ in commands]
        self.answered += 1
        for answer in answers:
            for part in answer if isinstance(answer, list) else ():
                if isinstance(part, Exception):  # a command within EXEC
                    raise part
        return answers

    def _open(self) -> None:
        know_the_resolver()
        self._connection = connection = self._make(**self._options)
        connection.connect()
        self._look_around()
        if self._epoch.begin(self):
            self._adopted(self)

    def _look_around(self) -> None:
        """
        Whether this Redis can be a ledger at all.

        Raises:
            LedgerError: It is too old, or set to throw data away when memory is short.
        """
        try:
            (text,) = self.raw(("INFO",))
        except redis.ResponseError:
            return  # not for us to see
        told = dict(
            line.split(":", 1) for line in text.decode("utf-8", "replace").splitlines() if ":" in line
        )
        self.is_cluster = told.get("cluster_enabled") == "1"
        version = told.get("redis_version", "")
        numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
        if numbers and numbers < _OLDEST:
            raise LedgerError(f"{self.name}: Redis {version} is too old, it takes 6.2 or later")
        policy = told.get("maxmemory_policy", "noeviction")
        if told.get("maxmemory", "0") != "0" and policy != "noeviction":
            raise LedgerError(
                f"{self.name}: maxmemory-policy is {policy}, so that Redis forgets usage when memory is "
                "short; set it to noeviction"
            )

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(redis.RedisError, OSError):
                connection.disconnect()

    def _error(self, error: Exception) -> LedgerError:
        told = without_secrets(" ".join(str(error).split()) or type(error).__name__, self._url)
        return LedgerError(f"{self.name}: {told}")


def _check(url: str) -> None:
    """
    Refuse what the driver would pass over in silence.

    Raises:
        ValueError: The number of the database is not a number, or a socket has no path.
    """
    scheme, _, rest = url.partition("://")
    place = rest.partition("?")[0].rpartition("@")[2]
    host, _, path = place.partition("/")
    if scheme == "unix":
        if not path:
            raise ValueError("a Redis on a socket is written unix:///path/to/redis.sock")
        return
    if not host:
        raise ValueError(f"a Redis ledger is written {scheme}://host:6379/0")
    if path and not path.isdigit():
        raise ValueError(f"the database of a Redis is a number, not {path!r}")
