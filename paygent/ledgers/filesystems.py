"""Which file systems are shared between machines: locks and shared memory do not hold there."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

NETWORK = frozenset(
    {
        "nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "ceph", "glusterfs", "lustre", "beegfs",
        "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.glusterfs", "fuse.ceph", "fuse.rclone", "fuse.davfs",
    }
)  # fmt: skip
_MOUNTS = Path("/proc/self/mounts")


def network_filesystem(path: Path) -> str | None:
    """The kind of network file system that *path* lies on; ``None`` for a local one, or where unknown."""
    kind = _kind(str(path.resolve()))
    return kind if kind in NETWORK else None


@lru_cache(maxsize=64)
def _kind(path: str) -> str | None:
    try:
        mounts = _MOUNTS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return filesystem_of(path, mounts)


def filesystem_of(path: str, mounts: str) -> str:
    r"""
    The type of the file system that holds *path*, an absolute path without links.

    Args:
        mounts: Lines of ``device folder type options …``, as in ``/proc/self/mounts``; blanks within a
            name are written ``\040``.
    """
    best, kind = "", ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        folder = fields[1].replace("\\040", " ").rstrip("/")
        if len(folder) >= len(best) and (path == folder or path.startswith(folder + "/")):
            best, kind = folder, fields[2]  # of mounts on one folder, the last is the one that shows
    return kind
