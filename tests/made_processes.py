"""The processes that a process has started, and those that they have."""

from pathlib import Path


def is_alive(pid: int) -> bool:
    """Return whether a process still runs: one that nobody has asked for its status does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def below(root: int, title: bytes) -> list[int]:
    """Return the processes below one whose command line has `title`, the oldest number first."""
    parents, titles = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            pid, fields = int(path.name), (path / "stat").read_text().rpartition(")")[2].split()
            parents[pid], titles[pid] = int(fields[1]), (path / "cmdline").read_bytes()
        except OSError:
            continue  # it ended meanwhile

    def is_below(pid: int) -> bool:
        return pid in parents and (parents[pid] == root or is_below(parents[pid]))

    return sorted(pid for pid in parents if title in titles[pid] and is_below(pid))
