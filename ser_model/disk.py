"""What an error of the operating system says, and what helps."""

import errno

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def in_words(error: OSError) -> str:
    """For a person who can do something about it."""
    remedy = "free some space on the disk" if error.errno in FULL_DISK else "see that its folder is there"
    return f"{error.filename or 'a file'}: {error.strerror}; {remedy}"
