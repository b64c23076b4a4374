import platform
import subprocess
import sys

import pytest

PROGRAM = """
import psutil, torch
from ser_model.memory import keep_freed_memory

def left_behind():
    block = torch.zeros(200 * 2**20, dtype=torch.uint8)
    with_block = psutil.Process().memory_info().rss
    del block
    return with_block - psutil.Process().memory_info().rss

given_back = left_behind()
keep_freed_memory()
print(given_back, left_behind())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_what_is_freed_stays_with_the_process():
    output = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
    before, after = map(int, output.split())
    assert before > 150 * 2**20 and after < 10 * 2**20
