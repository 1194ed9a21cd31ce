"""Runs the official SDK's own tests, unmodified, against a sandbox, twice on the same state.

    git clone --branch v2.18.4 https://github.com/scaleapi/scaleapi-python-client /tmp/sdk
    .venv/bin/python -m tests.sandbox.sdk_suite /tmp/sdk/tests

Only the two addresses that the SDK has built in are changed, from outside, by the conftest.py below.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from sandbox.pytest_plugin import running_sandbox

CONFTEST = """
import os
import scaleapi.api
from scaleapi.api_client.v2 import Configuration

address = os.environ["BASE_URL"]
scaleapi.api.SCALE_API_BASE_URL_V1 = f"{address}/v1"
made = Configuration.__init__

def with_our_address(self, *args, **settings):
    made(self, *args, **settings)
    self.host = address

Configuration.__init__ = with_our_address
"""
FILES = ("test_client.py", "test_v2_client.py", "test_image.png")


def main(tests: Path) -> int:
    with tempfile.TemporaryDirectory() as folder, running_sandbox(Path.cwd(), None, "--memory") as sandbox:
        (Path(folder) / "tests").mkdir()
        (Path(folder) / "conftest.py").write_text(CONFTEST)
        for name in FILES:
            shutil.copy(tests / name, Path(folder) / "tests" / name)
        env = {**os.environ, "BASE_URL": sandbox.url, "SCALE_TEST_API_KEY": sandbox.test_key}
        run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
        return max(subprocess.run(run, cwd=folder, env=env, check=False).returncode for _ in range(2))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
