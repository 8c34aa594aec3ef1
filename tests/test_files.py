"""Files are written whole or not at all, through links, and only where a regular file belongs."""

import errno
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from dynal_fast.files import (
    atomic_file,
    atomic_folder,
    regular_target,
    write_atomically,
)

ROOT = Path(__file__).parents[1]
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")


def test_a_file_is_made_with_the_usual_permissions_and_replaced(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"one")
    (tmp_path / "usual").write_bytes(b"")
    assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode
    write_atomically(str(path), b"two")
    assert path.read_bytes() == b"two"
    assert sorted(os.listdir(tmp_path)) == ["file", "usual"]


@posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o755])
def test_permissions_are_kept(tmp_path, mode):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(mode)
    write_atomically(path, b"new")
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert path.read_bytes() == b"new"


@posix
@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_and_its_target_is_written(tmp_path, exists, relative):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    target, link, second = folder / "target", tmp_path / "link", tmp_path / "second"
    if exists:
        target.write_bytes(b"old")
        target.chmod(0o640)
    link.symlink_to("elsewhere/target" if relative else target)
    second.symlink_to(link)
    write_atomically(second, b"new")
    assert second.is_symlink()
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert not target.is_symlink()
    if exists:
        assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert os.listdir(folder) == ["target"]
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "link", "second"]


@posix
def test_links_that_lead_nowhere_are_refused(tmp_path):
    circle, lost = tmp_path / "circle", tmp_path / "lost"
    circle.symlink_to(circle)
    lost.symlink_to(tmp_path / "no" / "folder" / "file")
    for link, code in ((circle, errno.ELOOP), (lost, errno.ENOENT)):
        with pytest.raises(OSError, match=f"cannot write {link}: ") as error:
            write_atomically(link, b"new")
        assert error.value.errno == code
        assert link.is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["circle", "lost"]


def _special(kind, path):
    if kind == "a folder":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a socket":
        here = os.getcwd()
        os.chdir(path.parent)  # a socket's path has to be short
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
        os.chdir(here)
    else:
        path.symlink_to("/dev/null")


@posix
@pytest.mark.parametrize("kind", ["a folder", "a pipe", "a socket", "a device"])
def test_what_is_no_regular_file_is_refused_and_stays(tmp_path, kind):
    path = tmp_path / "x"
    _special(kind, path)
    before = os.stat(path).st_mode, os.lstat(path).st_mode
    with pytest.raises(ValueError, match=rf"^cannot write {path}: it is {kind}, not a regular"):
        write_atomically(path, b"new")
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(ValueError, match=rf"^cannot write {link}: it is {kind}, not a regular"):
        write_atomically(link, b"new")
    assert (os.stat(path).st_mode, os.lstat(path).st_mode) == before
    assert sorted(os.listdir(tmp_path)) == ["link", "x"]


@posix
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux names open files in /proc")
@pytest.mark.parametrize(
    "name", ["/dev/fd/{}", "/proc/self/fd/{}", "/proc/thread-self/fd/{}", "link"]
)
def test_an_open_file_is_refused_and_keeps_what_it_holds(tmp_path, name):
    log = tmp_path / "log"
    with open(log, "w") as file:
        file.write("before\n")
        file.flush()
        path = Path(name.format(file.fileno()))
        if name == "link":
            path = tmp_path / "link"
            path.symlink_to(f"/dev/fd/{file.fileno()}")
        with pytest.raises(ValueError, match="it is an open file"):
            write_atomically(path, b"new")
        file.write("after\n")
    assert log.read_text() == "before\nafter\n"


@pytest.mark.parametrize("device", ["/dev/null", "/dev/full", "/dev/zero"])
def test_a_device_is_refused_by_name(device):
    with pytest.raises(ValueError, match=f"cannot write {device}: it is a device"):
        write_atomically(device, b"new")
    assert stat.S_ISCHR(os.stat(device).st_mode)


@pytest.mark.parametrize("read_only", ["folder", "folder/file"])
def test_what_is_read_only_is_refused(tmp_path, monkeypatch, read_only):
    path = tmp_path / "folder" / "file"
    path.parent.mkdir()
    path.write_bytes(b"old")
    access = os.access
    refused = tmp_path / read_only  # not by chmod: nothing is read-only to root
    monkeypatch.setattr(
        os, "access", lambda there, mode: Path(there) != refused and access(there, mode)
    )
    with pytest.raises(PermissionError, match=rf"cannot write {path}: .*read-only"):
        write_atomically(path, b"new")
    with pytest.raises(PermissionError, match=rf"cannot write {path}: .*read-only"):
        regular_target(path)
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == ["file"]


# A file may grow to one page here, as on a disk that is nearly full.
LIMITED = """
import os, resource, sys
from dynal_fast.files import write_atomically

resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
write_atomically(sys.argv[1], bytes(4096))
try:
    write_atomically(sys.argv[1], bytes(10_000))
except OSError as error:
    print(error.errno, error.strerror, os.path.getsize(sys.argv[1]), os.listdir("."))
"""


@posix
def test_a_file_that_does_not_fit_leaves_nothing_behind(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", LIMITED, "x"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    reason = f"{errno.EFBIG} cannot write x: {os.strerror(errno.EFBIG)}"
    assert run.stdout == f"{reason} 4096 ['x']\n", run.stderr


@pytest.mark.parametrize("step", ["fsync", "replace", "chmod"])
def test_a_failure_at_any_step_leaves_the_old_file(tmp_path, monkeypatch, step):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, full)
    with pytest.raises(
        OSError, match=rf"^\[Errno 28\] cannot write {path}: No space left"
    ) as error:
        write_atomically(path, b"new")
    monkeypatch.undo()
    assert error.value.errno == errno.ENOSPC
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, MemoryError])
def test_an_interrupted_block_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write():
        with atomic_file(path) as file:
            file.write(b"half of the new")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_name_may_be_as_long_as_the_file_system_takes(tmp_path):
    path = tmp_path / ("n" * 255)
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_folder_appears_whole_and_the_first_writer_wins(tmp_path):
    def fill(content):
        with atomic_folder(tmp_path / "entry") as folder:
            with atomic_file(folder / "a") as file:
                file.write(content)
            assert not list(tmp_path.glob("[!.]*")) or content == b"second"

    fill(b"first")
    assert (tmp_path / "entry" / "a").read_bytes() == b"first"
    fill(b"second")
    assert (tmp_path / "entry" / "a").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["entry"]


def test_a_folder_that_cannot_be_finished_is_deleted(tmp_path):
    def fill():
        with atomic_folder(tmp_path / "entry") as folder, atomic_file(folder / "a"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match=r"cannot write .*a: No space left"):
        fill()
    assert os.listdir(tmp_path) == []
