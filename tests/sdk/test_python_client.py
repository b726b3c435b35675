"""PyPI's `runpod` as a client: every call of `Endpoint` and `Job`, sync and asyncio."""

import asyncio
import time
import unittest

import requests
import runpod
from clients import work
from house import ENDPOINT, USER_KEY, House
from runpod.http_client import AsyncClientSession

HEALTH = {
    "jobs": {"completed", "failed", "inProgress", "inQueue", "retried"},
    "workers": {"idle", "initializing", "ready", "running", "throttled", "unhealthy"},
}


def shape(health: dict) -> dict:
    """The names of its numbers."""
    return {part: {name for name, count in counts.items() if isinstance(count, int)} for part, counts in health.items()}


class Client(unittest.TestCase):
    """`runpod.Endpoint`."""

    def setUp(self) -> None:
        self.house = House()
        self.addCleanup(self.house.close)
        runpod.api_key, runpod.endpoint_url_base = USER_KEY, self.house.base
        self.endpoint = runpod.Endpoint(ENDPOINT)

    def test_a_job_is_run_and_asked_after(self) -> None:
        job = self.endpoint.run({"input": {"say": {"ö": [1, 2.5, None]}}})
        self.assertEqual(job.status(), "IN_QUEUE")
        with self.house.scripted(work):
            self.assertEqual(job.output(timeout=30), {"ö": [1, 2.5, None]})
        self.assertEqual(job.status(), "COMPLETED")

    def test_an_output_that_takes_too_long_is_a_timeout(self) -> None:
        with self.assertRaises(TimeoutError):
            self.endpoint.run({"say": 1}).output(timeout=1)

    def test_whatever_is_no_input_is_wrapped(self) -> None:
        with self.house.scripted(work):
            self.assertEqual(self.endpoint.run_sync({"prompt": "p"}), {"prompt": "p"})
            self.assertEqual(self.endpoint.run_sync({"input": {}}), {"input": {}})

    def test_a_failed_job_has_no_output(self) -> None:
        with self.house.scripted(work):
            job = self.endpoint.run({"fail": {"deep": 1}})
            self.assertIsNone(job.output(timeout=30))
        self.assertEqual(job.status(), "FAILED")
        self.assertEqual(self.house.status(job.job_id)["error"], '{"deep":1}')

    def test_run_sync_waits_for_the_end(self) -> None:
        with self.house.scripted(work):
            began = time.monotonic()
            self.assertEqual(self.endpoint.run_sync({"sleep": 1.5, "say": "done"}, timeout=60), "done")
            self.assertGreater(time.monotonic() - began, 1.5)

    def test_a_stream_comes_whole_and_in_order(self) -> None:
        with self.house.scripted(work):
            parts = list(self.endpoint.run({"parts": 40}).stream())
        self.assertEqual(parts, [{"part": number} for number in range(40)])

    def test_a_job_is_cancelled_once(self) -> None:
        job = self.endpoint.run({"say": 1})
        for _ in range(2):
            self.assertEqual(job.cancel(), {"id": job.job_id, "status": "CANCELLED"})
        self.assertEqual(job.status(), "CANCELLED")

    def test_a_queue_is_purged_and_counted(self) -> None:
        jobs = [self.endpoint.run({"say": number}) for number in range(3)]
        self.assertEqual(self.endpoint.health()["jobs"]["inQueue"], 3)
        self.assertEqual(self.endpoint.purge_queue(), {"removed": 3, "status": "completed"})
        self.assertEqual({job.status() for job in jobs}, {"CANCELLED"})
        self.assertEqual(shape(self.endpoint.health()), HEALTH)

    def test_a_wrong_key_and_an_unknown_job_are_errors_of_their_kinds(self) -> None:
        with self.assertRaisesRegex(RuntimeError, "401"):
            runpod.Endpoint(ENDPOINT, api_key="wrong").health()
        for ask in (runpod.Endpoint("nobody").health, runpod.endpoint.Job(ENDPOINT, "no-job", self.endpoint.rp_client).status):
            with self.assertRaisesRegex(requests.HTTPError, "404"):
                ask()


class AsyncClient(unittest.IsolatedAsyncioTestCase):
    """`runpod.AsyncioEndpoint`."""

    async def asyncSetUp(self) -> None:
        # It would tell of all that takes a tenth of a second.
        asyncio.get_running_loop().set_debug(False)
        self.house = House()
        self.addCleanup(self.house.close)
        runpod.api_key, runpod.endpoint_url_base = USER_KEY, self.house.base
        session = AsyncClientSession()
        self.addAsyncCleanup(session.close)
        self.endpoint = runpod.AsyncioEndpoint(ENDPOINT, session)

    async def test_a_job_is_run_and_asked_after(self) -> None:
        job = await self.endpoint.run({"say": [1]})
        self.assertEqual(await job.status(), "IN_QUEUE")
        with self.house.scripted(work):
            self.assertEqual(await job.output(timeout=30), [1])
        self.assertEqual(await job.status(), "COMPLETED")

    async def test_an_output_that_takes_too_long_is_a_timeout(self) -> None:
        with self.assertRaises(TimeoutError):
            await (await self.endpoint.run({"say": 1})).output(timeout=1)

    async def test_a_stream_comes_whole_and_in_order(self) -> None:
        with self.house.scripted(work):
            job = await self.endpoint.run({"parts": 20})
            parts = [part async for part in job.stream()]
        self.assertEqual(parts, [{"part": number} for number in range(20)])

    async def test_jobs_are_cancelled_purged_and_counted(self) -> None:
        jobs = [await self.endpoint.run({"say": number}) for number in range(3)]
        self.assertEqual(await jobs[0].cancel(), {"id": jobs[0].job_id, "status": "CANCELLED"})
        self.assertEqual((await self.endpoint.health())["jobs"]["inQueue"], 2)
        self.assertEqual(await self.endpoint.purge_queue(), {"removed": 2, "status": "completed"})
        self.assertEqual([await job.status() for job in jobs], ["CANCELLED"] * 3)
        self.assertEqual(shape(await self.endpoint.health()), HEALTH)


if __name__ == "__main__":
    unittest.main()
