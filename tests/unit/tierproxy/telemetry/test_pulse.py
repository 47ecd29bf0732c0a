import asyncio
import contextlib

from prometheus_client import REGISTRY

from protocol.apis import ApiKey
from tierproxy.telemetry.pulse import pulse
from tierproxy.telemetry.traffic import TRAFFIC


async def test_the_pulse_measures_and_shows_what_was_counted() -> None:
    def looks() -> float:
        return REGISTRY.get_sample_value("tierproxy_event_loop_lag_seconds_count") or 0.0

    def requests() -> float:
        return REGISTRY.get_sample_value("tierproxy_requests_total", {"api": "ListGroups"}) or 0.0

    measured, before, asked = asyncio.Event(), looks(), requests()
    TRAFFIC.asked(ApiKey.LIST_GROUPS, 10)
    task = asyncio.get_running_loop().create_task(pulse([measured.set], every=0.001))
    await asyncio.wait_for(measured.wait(), 60)
    assert looks() > before
    assert requests() == asked + 1
    TRAFFIC.asked(ApiKey.LIST_GROUPS, 10)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert requests() == asked + 2, "the last moment counts, too"
