"""The curl lines of RunPod's tutorials as they are printed, but for host, key and ids; and what the tutorials do with the answers.

Where a page is cut off at its margin, the line is completed.
"""

import base64
import io
import json
import re
import subprocess
import sys
import unittest
from pathlib import Path
from typing import Any

import requests
from house import ENDPOINT, USER_KEY, House
from PIL import Image

DOG = "A cute fluffy white dog in the style of a Pixar animation 3D drawing."
FLYING = "a cute magical flying dog, fantasy art drawn by disney concept artists"

FIRST_ENDPOINT = {
    "run": r"""curl -X POST https://api.runpod.ai/v2/{ID}/run \
-H 'Content-Type: application/json' \
-H 'Authorization: Bearer [Your API Key]' \
-d '{"input": {"prompt": "A cute fluffy white dog in the style of a Pixar animation 3D drawing."}}'
""",
    "status": r"""curl https://api.runpod.ai/v2/{ID}/status/c80ffee4-f315-4e25-a146-0f3d98cf024b \
-H 'Content-Type: application/json' \
-H 'Authorization: Bearer [Your API Key]'
""",
    "save": r"""curl https://api.runpod.ai/v2/{ID}/status/c80ffee4-f315-4e25-a146-0f3d98cf024b \
-H 'Content-Type: application/json' \
-H 'Authorization: Bearer [Your API Key]' | jq . > output.json
""",
}

FIRST_API = {
    "runsync": r"""curl -X POST https://api.runpod.ai/v2/stable-diffusion-v1/runsync \
-H "Content-Type: application/json" \
-H "Authorization: Bearer ${YOUR_API_KEY}" \
-d '{"input": {"prompt": "a cute magical flying dog, fantasy art drawn by disney concept artists"}}'
""",
    "run": r"""curl -X POST https://api.runpod.ai/v2/stable-diffusion-v1/run \
-H "Content-Type: application/json" \
-H "Authorization: Bearer ${YOUR_API_KEY}" \
-d '{"input": {"prompt": "a cute magical flying dog, fantasy art drawn by disney concept artists"}}'
""",
    "status": r"""curl https://api.runpod.ai/v2/stable-diffusion-v1/status/c80ffee4-f315-4e25-a146-0f3d98cf024b \
-H "Content-Type: application/json" \
-H "Authorization: Bearer ${YOUR_API_KEY}"
""",
    "cancel": r"""curl https://api.runpod.ai/v2/stable-diffusion-v1/cancel/c80ffee4-f315-4e25-a146-0f3d98cf024b \
-H "Content-Type: application/json" \
-H "Authorization: Bearer ${YOUR_API_KEY}"
""",
    "health": r"""curl --request GET \
--url https://api.runpod.ai/v2/stable-diffusion-v1/health \
--header "accept: application/json" \
--header "authorization: Bearer ${YOUR_API_KEY}"
""",
}

SDXL = {
    "run": r"""curl -X POST https://api.runpod.ai/v2/ENDPOINT_ID/run \
    -H 'Content-Type: application/json'                             \
    -H 'Authorization: Bearer YOUR_API_KEY' \
    -d '{"input": {"prompt": "A cute fluffy white dog in the style of a Pixar animation 3D drawing."}}'
""",
    "status": r"""curl https://api.runpod.ai/v2/ENDPOINT_ID/status/JOB_ID \
-H 'Content-Type: application/json' \
    -H 'Authorization: Bearer YOUR_API_KEY'
""",
    "save": r"""curl https://api.runpod.ai/v2/ENDPOINT_ID/status/JOB_ID \
    -H 'Content-Type: application/json' \
    -H 'Authorization: Bearer YOUR_API_KEY' | jq . > output.json
""",
}

API_PAGE = {
    "run": r"""curl -X POST https://api.runpod.ai/v1/stable-diffusion-v1/run \
-H 'Content-Type: application/json'                             \
-H 'Authorization: Bearer xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'    \
-d '{"input": {"prompt": "a cute magical flying dog, fantasy art drawn by disney concept artists"}}'
""",
    "status": r"""curl https://api.runpod.ai/v1/stable-diffusion-v1/status/xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx \
-H 'Content-Type: application/json'                             \
-H 'Authorization: Bearer xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'    
""",
}

# What the tutorials' Python does with output.json, in fewer words.
DECODE_V1 = """
import base64, json
with open("output.json") as file:
    image = json.load(file)["output"][0]["image"]
with open("decoded_image.png", "wb") as file:
    file.write(base64.b64decode(image))
"""
DECODE_SDXL = """
import base64, io, json
from PIL import Image
with open("output.json", "r") as file:
    url = json.load(file).get("output", {}).get("image_url")
encoded = url.split(",", 1)[1] if "," in url else url
Image.open(io.BytesIO(base64.b64decode(encoded))).save("decoded_image.png")
"""


def picture() -> str:
    """A PNG of 3 by 2 in base64."""
    file = io.BytesIO()
    Image.new("RGB", (3, 2), (200, 30, 40)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def draw_v1(_: dict) -> list:
    """What a Stable Diffusion v1 worker returns."""
    return [{"image": picture(), "seed": 40264}]


def draw_sdxl(_: dict) -> dict:
    """What the SDXL worker returns: an object, as the tutorial's script has it."""
    url = f"data:image/png;base64,{picture()}"
    return {"images": [url], "image_url": url, "seed": 37362}


class Lines(unittest.TestCase):
    """A page each."""

    def setUp(self) -> None:
        self.house = House()
        self.addCleanup(self.house.close)

    def shell(self, line: str, job: str = "") -> Any:
        """What a line prints, as JSON; None if it prints nothing."""
        line = line.replace("https://api.runpod.ai", self.house.address)
        line = re.sub(r"\{ID\}|ENDPOINT_ID", ENDPOINT, line)
        line = re.sub(r"c80ffee4-[0-9a-f-]+|JOB_ID|x{8}(-x{4}){3}-x{12}", job, line)
        line = re.sub(r"\[Your API Key\]|YOUR_API_KEY(?!\})|x{40}", USER_KEY, line)
        environment = {"PATH": "/usr/bin:/bin", "YOUR_API_KEY": USER_KEY}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line], cwd=self.house.folder.name, env=environment, capture_output=True, text=True, timeout=60, check=False
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, line + done.stderr)
        return json.loads(done.stdout) if done.stdout else None

    def decode(self, script: str) -> None:
        """The script makes a picture of output.json."""
        subprocess.run([sys.executable, "-c", script], cwd=self.house.folder.name, timeout=60, check=True)
        with Image.open(Path(self.house.folder.name, "decoded_image.png")) as image:
            self.assertEqual((image.size, image.getpixel((2, 1))), ((3, 2), (200, 30, 40)))

    def waiting(self, lines: dict[str, str], prompt: str) -> str:
        """Submits, and looks at the job while it waits."""
        submitted = self.shell(lines["run"])
        self.assertEqual(list(submitted), ["id", "status"])
        self.assertEqual(submitted["status"], "IN_QUEUE")
        found = self.shell(lines["status"], submitted["id"])
        self.assertEqual((found["input"], found["status"]), ({"prompt": prompt}, "IN_QUEUE"))
        return submitted["id"]

    def test_the_first_endpoint(self) -> None:
        job = self.waiting(FIRST_ENDPOINT, DOG)
        with self.house.scripted(draw_v1):
            self.house.when(job)
        self.assertIsNone(self.shell(FIRST_ENDPOINT["save"], job))
        found = json.loads(Path(self.house.folder.name, "output.json").read_text())
        self.assertLessEqual({"delayTime", "executionTime", "id", "output", "status"}, found.keys())
        self.assertEqual((found["status"], found["output"][0]["seed"]), ("COMPLETED", 40264))
        self.decode(DECODE_V1)

    def test_the_first_api(self) -> None:
        job = self.waiting(FIRST_API, FLYING)
        self.assertEqual(self.shell(FIRST_API["cancel"], job), {"id": job, "status": "CANCELLED"})
        with self.house.scripted(draw_v1):
            found = self.shell(FIRST_API["runsync"])
            self.assertEqual((found["status"], found["output"][0]["seed"]), ("COMPLETED", 40264))
            self.assertEqual(self.shell(FIRST_API["health"])["jobs"]["completed"], 1)

    def test_sdxl(self) -> None:
        job = self.waiting(SDXL, DOG)
        with self.house.scripted(draw_sdxl):
            self.house.when(job)
        self.assertIsNone(self.shell(SDXL["save"], job))
        self.assertIn("workerId", json.loads(Path(self.house.folder.name, "output.json").read_text()))
        self.decode(DECODE_SDXL)

    def test_the_page_of_the_api(self) -> None:
        job = self.waiting(API_PAGE, FLYING)
        with self.house.scripted(draw_v1):
            self.house.when(job)
        found = self.shell(API_PAGE["status"], job)
        self.assertEqual(list(found)[:7], ["delayTime", "executionTime", "gpu", "id", "input", "output", "status"])
        self.assertEqual((found["input"], type(found["gpu"])), ({"prompt": FLYING}, str))

    def test_the_page_s_python(self) -> None:
        url = f"{self.house.address}/v1/{ENDPOINT}/run"
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {USER_KEY}"}
        reply = requests.post(url, json={"input": {"prompt": "My creative vision."}}, headers=headers, timeout=10)
        self.assertEqual((reply.status_code, reply.json()["status"]), (200, "IN_QUEUE"))

    def test_a_bare_key_is_as_good(self) -> None:
        submitted = self.shell(FIRST_API["run"].replace("Bearer ", ""))
        self.assertEqual(submitted["status"], "IN_QUEUE")


if __name__ == "__main__":
    unittest.main()
