"""A file that is made whole or not at all, readable by its owner only."""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from vfioctl.errors import UsageError


def write_new(path: str, data: bytes, *, overwrite: bool) -> None:
    """Writes a file under another name, syncs it, and gives it its name at the end; a link of that name is replaced,
    not followed. Raises UsageError when the name is taken (with ``overwrite``: by anything but a regular file), or when
    anybody could put another file in its place; OSError."""
    directory, name = os.path.split(path)
    where = os.open(directory or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _refuse_shared(where, directory or ".")
        _refuse_taken(where, name, path, overwrite)
        temporary = f".vfioctl-{os.urandom(8).hex()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o600, dir_fd=where)
        try:
            with open(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(fd)
            _name(where, temporary, name, path, overwrite)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=where)
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(where)


def _name(where: int, temporary: str, name: str, path: str, overwrite: bool) -> None:
    if not overwrite:
        try:
            os.link(temporary, name, src_dir_fd=where, dst_dir_fd=where, follow_symlinks=False)
            return
        except FileExistsError:
            raise _taken(path) from None
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
                raise
        _refuse_taken(where, name, path, overwrite)  # a file system without hard links
    os.rename(temporary, name, src_dir_fd=where, dst_dir_fd=where)


def _refuse_shared(where: int, directory: str) -> None:
    mode = os.fstat(where).st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise UsageError(
            f"everybody may put another file in the place of one in {directory}",
            hint="write it to a directory of your own",
            subject=directory,
            code="unsafe-directory",
        )


def _refuse_taken(where: int, name: str, path: str, overwrite: bool) -> None:
    try:
        mode = os.stat(name, dir_fd=where, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if not overwrite:
        raise _taken(path)
    if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
        raise UsageError(f"{path} is no regular file, and is not replaced", subject=path, code="exists")


def _taken(path: str) -> UsageError:
    return UsageError(
        f"{path} exists already",
        hint="--overwrite replaces it; or name another with -o",
        subject=path,
        code="exists",
    )
