"""The mode of new files and folders: databases, results, exports, backups and logs are for this user alone."""

import os


def make_new_files_private() -> None:
    """Create files with mode 0600 and folders with 0700 from now on, here and in child processes.

    SQLite gives its journals the mode of the database. Existing files keep theirs.
    """
    os.umask(0o077)
