import pytest

from paygent.ledger import LedgerError
from paygent.ledgers import filesystems, sqlite
from paygent.ledgers.filesystems import filesystem_of, network_filesystem

MOUNTS = """\
overlay / overlay rw,relatime 0 0
tmpfs /tmp tmpfs rw 0 0
server:/data /data nfs4 rw 0 0
/dev/sdb1 /data/ada/local ext4 rw 0 0
//nas/share /mnt/the\\040share cifs rw 0 0
user@host: /srv/far fuse.sshfs rw 0 0
nonsense
"""


@pytest.mark.parametrize(
    "path, kind",
    [
        ("/var/lib/app", "overlay"),
        ("/tmp", "tmpfs"),
        ("/tmpfiles", "overlay"),
        ("/data/bob", "nfs4"),
        ("/data/ada/local/p", "ext4"),
        ("/data/ada/local2", "nfs4"),
        ("/mnt/the share/p", "cifs"),
        ("/srv/far/away", "fuse.sshfs"),
    ],
)
def test_the_innermost_mount_counts(path, kind):
    """The file system of a path is that of the deepest folder that is mounted above it."""
    assert filesystem_of(path, MOUNTS) == kind


def test_only_shared_file_systems_are_named(tmp_path, monkeypatch):
    """A local file system is fine, a network one is told by name, and without a list nobody knows."""
    assert network_filesystem(tmp_path) is None
    mounts = tmp_path / "mounts"
    monkeypatch.setattr(filesystems, "_MOUNTS", mounts)
    filesystems._kind.cache_clear()
    assert network_filesystem(tmp_path / "x") is None
    mounts.write_text(f"server:/ {tmp_path.resolve()} nfs rw 0 0\n")
    filesystems._kind.cache_clear()
    assert network_filesystem(tmp_path / "x") == "nfs"
    filesystems._kind.cache_clear()


def test_sqlite_refuses_a_network_file_system(tmp_path, monkeypatch):
    """A SQLite ledger on a network file system is a clear error, and no file is made."""
    monkeypatch.setattr(sqlite, "network_filesystem", lambda path: "nfs4")
    with pytest.raises(LedgerError, match="nfs4"):
        sqlite.SqliteLedger(tmp_path / "p.db").plans()
    assert not (tmp_path / "p.db").exists()
