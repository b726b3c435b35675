"""npm's `runpod-sdk`: runs `javascript_client.mjs`, which has the tests."""

import os
import subprocess
import unittest

from clients import work
from house import ENDPOINT, HERE, USER_KEY, House


class Client(unittest.TestCase):
    """One gateway without workers, and one with."""

    def test_every_call_of_the_sdk(self) -> None:
        houses = {"QUIET": House(), "BUSY": House()}
        for house in houses.values():
            self.addCleanup(house.close)
        environment = {name: house.base for name, house in houses.items()}
        with houses["BUSY"].scripted(work):
            done = subprocess.run(
                ["node", "--test", str(HERE / "javascript_client.mjs")],
                env={"PATH": os.environ["PATH"], "KEY": USER_KEY, "ENDPOINT": ENDPOINT, **environment},
                capture_output=True, text=True, timeout=180, check=False,
            )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("pass 10", done.stdout)


if __name__ == "__main__":
    unittest.main()
