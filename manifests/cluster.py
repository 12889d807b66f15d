"""A Ray to work on: a local one, started quietly, or a running cluster that is joined."""

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator

import ray

from .errors import UsageError

CONNECT_SECONDS = 10.0


@contextlib.contextmanager
def ray_cluster(num_cpus: int | None = None, address: str | None = None) -> Iterator[None]:
    """Start a local Ray, or join one; an already connected Ray is used and left as it is.

    Args:
        num_cpus: What a local Ray may use at a time; all cores if None.
        address: A running cluster to join.

    Raises:
        UsageError: No cluster answers at `address`.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    on_sigterm = signal.getsignal(signal.SIGTERM)
    if address is None:
        ray.init(
            address="local",  # whatever else runs here, and whatever RAY_ADDRESS says
            num_cpus=num_cpus or os.cpu_count(),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    else:
        _join(address)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray takes it for itself
    # Ray prints on stdout that a worker died, even where it was told not to log to the driver.
    ray._private.worker._worker_logs_enabled = False
    try:
        yield
    finally:
        ray._private.worker._worker_logs_enabled = True
        ray.shutdown()


def _join(address: str) -> None:
    """Join a running cluster, or say that there is none; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if host and port.isdecimal():
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError) as err:
        raise UsageError(f"no Ray cluster answers at {address!r}") from err
