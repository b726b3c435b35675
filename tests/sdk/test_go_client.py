"""A client as RunPod's Go SDK is one: POST for all but health, 200 or an error, whole numbers and one text for an error."""

import time
import unittest
from typing import Any

import requests
from clients import work
from house import ENDPOINT, USER_KEY, House

STATUS = {"delayTime": int, "executionTime": int, "error": str, "id": str, "retries": int, "status": str, "workerId": str}
COUNTS = {"completed", "failed", "inProgress", "inQueue", "retried"}
WORKERS = {"idle", "initializing", "ready", "running", "throttled"}


def decode(found: dict[str, Any], types: dict[str, type]) -> dict[str, Any]:
    """As Go's JSON decoder fills a struct: other keys are passed over, and a value of another type is an error."""
    for name, wanted in types.items():
        if name in found and type(found[name]) is not wanted:
            raise TypeError(f"{name} is {found[name]!r}, no {wanted.__name__}")
    return found


class Client(unittest.TestCase):
    """The calls of its `Endpoint`."""

    def setUp(self) -> None:
        self.house = House()
        self.addCleanup(self.house.close)

    def ask(self, operation: str, body: Any = None, wait: float = 10.0, method: str = "POST") -> Any:
        headers = {"Authorization": f"Bearer {USER_KEY}", "Content-Type": "application/json"}
        url = f"{self.house.base}/{ENDPOINT}{operation}"
        reply = requests.request(method, url, json=body, headers=headers, timeout=wait)
        self.assertEqual((reply.status_code, reply.headers["Content-Type"]), (200, "application/json"), reply.text)
        return reply.json()

    def run_job(self, asked: Any, **more: Any) -> str:
        return decode(self.ask("/run", {"input": asked, **more}), STATUS)["id"]

    def test_a_job_is_run_and_asked_after(self) -> None:
        job = self.run_job({"say": [1]}, policy={"executionTimeout": 60000, "ttl": 100000, "lowPriority": False})
        self.assertEqual(decode(self.ask(f"/status/{job}"), STATUS)["status"], "IN_QUEUE")
        with self.house.scripted(work):
            found = decode(self.ask(f"/status-sync/{job}?wait=30000", wait=32), STATUS)
        self.assertEqual((found["status"], found["output"]), ("COMPLETED", [1]))
        self.assertLessEqual({"delayTime", "executionTime", "workerId"}, found.keys())

    def test_an_error_is_a_text_whatever_the_worker_says(self) -> None:
        with self.house.scripted(work):
            for fail, text in (("one", "one"), (["e1", "e2"], '["e1","e2"]'), ({"code": 7}, '{"code":7}'), (7, "7")):
                found = decode(self.ask("/runsync?wait=30000", {"input": {"fail": fail}}, wait=32), STATUS)
                self.assertEqual((found["status"], found["error"]), ("FAILED", text))

    def test_a_wait_is_over_in_time(self) -> None:
        # It gives up two seconds after the wait that it asked for.
        began = time.monotonic()
        found = decode(self.ask("/runsync?wait=1000", {"input": {"say": 1}}, wait=3), STATUS)
        self.assertEqual(found["status"], "IN_QUEUE")
        self.assertEqual(decode(self.ask(f"/status-sync/{found['id']}?wait=1000", wait=3), STATUS)["status"], "IN_QUEUE")
        self.assertGreater(time.monotonic() - began, 1.9)

    def test_a_stream_is_drained_until_the_end(self) -> None:
        with self.house.scripted(work):
            job, parts, status = self.run_job({"parts": 20}), [], ""
            while status not in {"COMPLETED", "FAILED"}:
                found = decode(self.ask(f"/stream/{job}?wait=90000", wait=92), {"status": str, "stream": list})
                parts += [part["output"] for part in found["stream"]]
                status = found["status"]
        self.assertEqual((status, parts), ("COMPLETED", [{"part": number} for number in range(20)]))

    def test_jobs_are_cancelled_and_purged(self) -> None:
        jobs = [self.run_job({"say": number}) for number in range(3)]
        self.assertEqual(decode(self.ask(f"/cancel/{jobs[0]}"), STATUS)["status"], "CANCELLED")
        found = decode(self.ask("/purge-queue"), {"removed": int, "status": str})
        self.assertEqual(found, {"removed": 2, "status": "completed"})
        self.assertEqual(decode(self.ask(f"/status/{jobs[2]}"), STATUS)["status"], "CANCELLED")

    def test_health_is_whole_numbers(self) -> None:
        found = self.ask("/health", method="GET")
        for part, names in (("jobs", COUNTS), ("workers", WORKERS)):
            self.assertLessEqual(names, found[part].keys())
            decode(found[part], dict.fromkeys(found[part], int))

    def test_a_request_without_a_key_is_told_so(self) -> None:
        # The documented program for Go makes headers and does not send them.
        reply = requests.post(f"{self.house.address}/v1/{ENDPOINT}/run", json={"input": {"prompt": "My creative vision."}}, timeout=10)
        self.assertEqual((reply.status_code, type(reply.json()["error"])), (401, str))


if __name__ == "__main__":
    unittest.main()
