"""RunPod's Python worker on the gateway: what handlers return, raise, yield and say on the way."""

import time
import unittest
from typing import Any

from house import WORKER_KEY, House


class Returns(unittest.TestCase):
    """One sync handler, many jobs."""

    house: House

    @classmethod
    def setUpClass(cls) -> None:
        cls.house = House()
        cls.addClassCleanup(cls.house.close)
        cls.worker = cls.house.worker("plain")

    def ends(self, case: str, **more: Any) -> dict[str, Any]:
        """How such a job ends."""
        return self.house.when(self.house.submit({"case": case}, **more))

    def test_values_come_back_as_they_were(self) -> None:
        jobs = {}
        for case, output in (
            ("object", {"a": 1}), ("text", "ünicode"), ("true", True), ("list", [1, [2]]), ("null", None),
            ("nested", {"output": {"a": 1}}), ("no error", {"r": 1}), ("not a number", {"x": None}),
        ):  # fmt: skip
            jobs[self.house.submit({"case": case})] = (case, output)
        for job, (case, output) in jobs.items():
            with self.subTest(case):
                found = self.house.when(job)
                self.assertEqual((found["status"], found["output"]), ("COMPLETED", output))
                self.assertNotIn("error", found)

    def test_an_empty_object_is_no_output(self) -> None:
        found = self.ends("empty")
        self.assertEqual(found["status"], "COMPLETED")
        self.assertNotIn("output", found)

    def test_an_error_fails_and_keeps_what_is_beside_it(self) -> None:
        found = self.ends("error")
        self.assertEqual((found["status"], found["error"], "output" in found), ("FAILED", "m", False))
        found = self.ends("errors and more")
        self.assertEqual((found["status"], found["error"], found["output"]), ("FAILED", '["e1","e2"]', {"keep": 1}))

    def test_an_exception_is_told_in_full(self) -> None:
        found = self.ends("raise")
        self.assertEqual(found["status"], "FAILED")
        for word in ("ValueError", "what was raised", "error_traceback", '"runpod_version": "1.12.0"'):
            self.assertIn(word, found["error"])

    def test_what_is_no_json_is_never_sent_and_fails_all_the_same(self) -> None:
        # The worker drops it and asks for more with nothing in hand: lost, and once more.
        found = self.house.when(self.house.submit({"case": "no JSON"}), within=120)
        self.assertEqual((found["status"], found["error"], found["retries"]), ("FAILED", "job timed out after 1 retries", 1))

    def test_the_handler_gets_the_whole_job(self) -> None:
        s3 = {"accessId": "i", "accessSecret": "s3cret", "bucketName": "b", "endpointUrl": "https://s3.example"}
        found = self.ends("whole job", batchId="b1", webhook=None, s3Config=s3, mine=[1.50])
        job = found["output"]
        self.assertEqual((job["id"], job["input"], job["batchId"], job["s3Config"]), (found["id"], {"case": "whole job"}, "b1", s3))
        self.assertEqual((job["mine"], job["webhook"]), ([1.5], None))
        self.worker.says("[batchId=b1]")

    def test_progress_is_shown_until_the_end(self) -> None:
        job = self.house.submit({"case": "progress"})
        self.worker.says(f"{job} | Progress Update Sent")
        found = self.house.status(job)
        self.assertEqual((found["status"], found["output"], type(found["executionTime"])), ("IN_PROGRESS", {"step": 1}, int))
        self.assertEqual(self.house.when(job)["output"], "done")

    def test_late_progress_changes_nothing(self) -> None:
        job = self.house.submit({"case": "late progress"})
        done = self.house.when(job)
        self.assertEqual((done["status"], done["output"]), ("COMPLETED", "done"))
        self.worker.says(f"{job} | Progress Update Sent")
        self.assertEqual(self.house.status(job), done)

    def test_a_second_end_is_heard_and_dropped(self) -> None:
        done = self.ends("object")
        route = f"/job-done/{done['workerId']}/{done['id']}?isStream=false"
        for body in ({"error": "late"}, {"output": 2}, {"status": "IN_PROGRESS", "output": 3}):
            self.assertEqual(self.house.ask("POST", route, key=WORKER_KEY, json=body).status_code, 200)
        self.assertEqual(self.house.status(done["id"]), done)


class Pace(unittest.TestCase):
    """How soon and how many at once."""

    def setUp(self) -> None:
        self.house = House()
        self.addCleanup(self.house.close)

    def test_an_open_poll_is_held_and_gets_a_job_at_once(self) -> None:
        worker = self.house.idle_worker("one")
        time.sleep(3)
        self.assertEqual(worker.log.read_text().count("Starting job acquisition"), 1, "it asked again within seconds")
        delays = []
        for _ in range(5):
            delays.append(self.house.when(self.house.submit({"case": "object"}))["delayTime"])
            # The SDK asks again a second after a job.
            time.sleep(1.5)
        self.assertLess(min(delays), 50, "milliseconds from submit to start")

    def test_jobs_that_wait_come_as_one_batch_and_overlap(self) -> None:
        jobs = [self.house.submit({"sleep": 2}) for _ in range(3)]
        self.house.worker("three")
        outputs = [self.house.when(job)["output"] for job in jobs]
        begins, ends = ([output[what] for output in outputs] for what in ("began", "ended"))
        self.assertLess(max(begins) - min(begins), 0.9, "seconds apart: single takes are a second apart at least")
        self.assertLess(max(begins), min(ends))

    def test_a_worker_with_room_left_keeps_what_it_has(self) -> None:
        worker = self.house.idle_worker("two")
        first = self.house.submit({"sleep": 6})
        self.house.when(first, "IN_PROGRESS")
        worker.says(f"job_id={first}")
        second = self.house.when(self.house.submit({"sleep": 0}))
        first = self.house.when(first)
        self.assertEqual((first["status"], second["status"]), ("COMPLETED", "COMPLETED"))
        self.assertLess(second["output"]["began"], first["output"]["ended"])
        self.assertFalse({"retries"} & (first.keys() | second.keys()))


class Streams(unittest.TestCase):
    """Generators, sync and async, with their whole at the end or not."""

    def setUp(self) -> None:
        self.house = House()
        self.addCleanup(self.house.close)

    def drain(self, job: str) -> list[Any]:
        """All parts, as clients collect them."""
        parts: list[Any] = []
        while True:
            found = self.house.ask("GET", f"/stream/{job}").json()
            parts += [part["output"] for part in found["stream"]]
            if found["status"] not in {"IN_QUEUE", "IN_PROGRESS"} and not found["stream"]:
                return parts

    def check(self, kind: str, whole: bool) -> None:
        self.house.worker(kind)
        job = self.house.submit({"count": 25})
        self.assertEqual(self.drain(job), list(range(25)))
        found = self.house.status(job)
        self.assertEqual((found["status"], found["output"]), ("COMPLETED", list(range(25)) if whole else []))
        self.assertEqual(self.house.ask("GET", f"/stream/{job}").json(), {"status": "COMPLETED", "stream": []})

    def test_parts_alone(self) -> None:
        self.check("parts", whole=False)

    def test_parts_and_the_whole(self) -> None:
        self.check("all parts", whole=True)

    def test_async_parts_and_errors_in_the_middle(self) -> None:
        self.check("async parts", whole=True)
        for then, text in (("raise", "in the middle"), ("error", "said in the middle")):
            job = self.house.submit({"count": 2, "then": then})
            self.assertEqual(self.drain(job), [0, 1])
            found = self.house.status(job)
            self.assertEqual(found["status"], "FAILED")
            self.assertIn(text, found["error"])


if __name__ == "__main__":
    unittest.main()
