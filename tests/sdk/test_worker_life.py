"""RunPod's Python worker on the gateway: how it stops, is stopped, dies, and what becomes of its jobs."""

import signal
import unittest
from pathlib import Path

from house import ENDS, House, until

LOST = 3.0  # seconds: forty, unless it is set


class Life(unittest.TestCase):
    """A gateway each."""

    def setUp(self) -> None:
        self.house = House(lost=LOST)
        self.addCleanup(self.house.close)

    def listed(self, worker, asked: dict) -> str:
        """A job that the worker has told of in a heartbeat."""
        job = self.house.submit(asked)
        worker.says(f"job_id={job}")
        return job

    def test_a_killed_worker_costs_one_try_and_two_the_job(self) -> None:
        worker = self.house.worker("patient")
        job = self.listed(worker, {"sleep": 60})
        worker.signal_all(signal.SIGKILL)
        self.assertEqual(self.house.when(job, "IN_QUEUE", within=LOST + 30)["retries"], 1)
        worker = self.house.worker("patient")
        worker.says(f"job_id={job}")
        worker.signal_all(signal.SIGKILL)
        found = self.house.when(job)
        self.assertEqual((found["status"], found["error"], found["retries"]), ("FAILED", "job timed out after 1 retries", 1))
        self.assertEqual(self.house.ask("GET", "/health").json()["jobs"]["failed"], 1)

    def test_a_killed_worker_s_job_is_done_by_the_next(self) -> None:
        worker = self.house.worker("patient")
        job = self.listed(worker, {"once": "first"})
        worker.signal_all(signal.SIGKILL)
        self.house.worker("patient", "next")
        found = self.house.when(job)
        self.assertEqual((found["status"], found["retries"], found["workerId"], found["output"]["first"]), ("COMPLETED", 1, "next", False))

    def test_a_stopped_process_loses_its_job_and_comes_too_late(self) -> None:
        frozen = self.house.worker("patient", "frozen")
        job = self.listed(frozen, {"once": "first"})
        frozen.signal_all(signal.SIGSTOP)
        self.house.worker("patient", "next")
        found = self.house.when(job)
        self.assertEqual((found["status"], found["workerId"]), ("COMPLETED", "next"))
        frozen.signal_all(signal.SIGCONT)
        frozen.signal(signal.SIGTERM)
        self.assertEqual(self.house.status(job), found)

    def test_a_busy_worker_that_is_told_to_stop_brings_its_result(self) -> None:
        worker = self.house.worker("patient")
        job = self.listed(worker, {"sleep": 3})
        worker.signal(signal.SIGTERM)
        found = self.house.when(job)
        self.assertEqual(found["status"], "COMPLETED")
        self.assertNotIn("retries", found)
        self.assertEqual(worker.code(), 0)

    def test_an_idle_worker_that_is_told_to_stop_loses_no_job(self) -> None:
        # It takes the job on the poll that it has open; as a rule it never begins it, and ends as if all were well.
        leaving = self.house.idle_worker("patient", "leaving")
        leaving.signal(signal.SIGTERM)
        leaving.says("Kill worker.")
        job = self.house.submit({"sleep": 0})
        self.house.when(job, "IN_PROGRESS", *ENDS)
        self.house.worker("patient", "staying")
        self.assertEqual(leaving.code(), 0)
        found = self.house.when(job)
        self.assertEqual(found["status"], "COMPLETED")
        self.assertIn(found["workerId"], ("staying", "leaving"))

    def test_a_result_is_taken_by_the_gateway_that_comes_after_a_crash(self) -> None:
        worker = self.house.worker("patient")
        job = self.listed(worker, {"sleep": 4})
        self.house.crash()
        found = self.house.when(job)
        self.assertEqual((found["status"], found["output"]["first"]), ("COMPLETED", False))
        self.assertNotIn("retries", found)


class Again(unittest.TestCase):
    """A gateway as patient as usual."""

    def setUp(self) -> None:
        self.house = House()
        self.addCleanup(self.house.close)

    def test_a_worker_that_comes_back_with_nothing_in_hand_gets_its_job_again(self) -> None:
        worker = self.house.worker("patient", "same")
        job = self.house.submit({"once": "first"})
        worker.says(f"job_id={job}")
        worker.signal_all(signal.SIGKILL)
        self.house.worker("patient", "same")
        found = self.house.when(job, within=25)
        self.assertEqual((found["status"], found["retries"], found["output"]["first"]), ("COMPLETED", 1, False))

    def test_one_of_three_is_stopped(self) -> None:
        worker = self.house.worker("three")
        jobs = [self.house.submit({"sleep": 4}) for _ in range(3)]
        for job in jobs:
            self.house.when(job, "IN_PROGRESS")
        worker.says("Jobs in progress: 3")
        self.assertEqual(self.house.ask("POST", f"/cancel/{jobs[1]}").json()["status"], "CANCELLED")
        until("its handler is told", Path(self.house.folder.name, f"stopped-{jobs[1]}").exists, within=3)
        self.assertEqual([self.house.when(job)["status"] for job in jobs], ["COMPLETED", "CANCELLED", "COMPLETED"])
        self.assertNotIn("output", self.house.status(jobs[1]))

    def test_a_job_that_takes_too_long_is_stopped(self) -> None:
        self.house.worker("patient")
        job = self.house.submit({"sleep": 60}, policy={"executionTimeout": 5000})
        found = self.house.when(job)
        self.assertEqual(found["status"], "TIMED_OUT")
        self.assertTrue(5000 <= found["executionTime"] < 7000, found)
        until("its handler is told", Path(self.house.folder.name, f"stopped-{job}").exists, within=5)
        self.assertEqual(self.house.when(self.house.submit({"sleep": 0}))["status"], "COMPLETED", "the worker lives")

    def test_a_worker_that_asks_for_its_end_gets_no_job(self) -> None:
        stale = self.house.worker("plain", "stale")
        first = self.house.when(self.house.submit({"case": "refresh"}))
        self.assertEqual((first["status"], first["output"], first["workerId"]), ("COMPLETED", {"r": 1}, "stale"))
        job = self.house.submit({"case": "object"})
        stale.says("Starting job acquisition")
        self.house.worker("plain", "fresh")
        self.assertEqual(self.house.when(job)["workerId"], "fresh")
        found = self.house.when(self.house.submit({"case": "error and refresh"}))
        self.assertEqual((found["status"], found["error"], found["workerId"]), ("FAILED", "bye", "fresh"))
        waits = self.house.submit({"case": "object"})
        with self.assertRaises(AssertionError):
            self.house.when(waits, within=3)
        self.assertEqual(self.house.status(waits)["status"], "IN_QUEUE")

    def test_a_worker_that_is_to_be_fresh_ends_at_once(self) -> None:
        worker = self.house.worker("fresh")
        job = self.house.submit({"sleep": 0})
        self.assertEqual(self.house.when(job)["status"], "COMPLETED")
        # Its polls are answered, or it would sit at them for twenty seconds.
        self.assertEqual(worker.code(within=10), 0)

    def test_an_unfit_worker_is_counted_and_gets_no_job(self) -> None:
        job = self.house.submit({"case": "object"})
        worker = self.house.worker("unfit")
        self.assertEqual(worker.code(), 1)
        self.assertEqual(self.house.ask("GET", "/health").json()["workers"]["unhealthy"], 1)
        self.assertEqual(self.house.status(job)["status"], "IN_QUEUE")


if __name__ == "__main__":
    unittest.main()
