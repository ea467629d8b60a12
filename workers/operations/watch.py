"""The watch: samples the whole system and tells what is wrong. One operations worker at a time keeps it."""

import asyncio
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException

import msgspec
import structlog
from prometheus_client.core import Metric

from protocol.messages.monitor import Alert, AlertLevel, AlertState, Metrics
from runtime.logging import redact_text
from runtime.settings import Config
from storage.admission import AdmissionSettings
from storage.errors import StoreAway
from storage.monitoring import Monitoring
from storage.priorities import Priorities
from storage.scaling import Scaling
from workers.operations.alerts import Open, OpenAlert, judge, told
from workers.operations.door import Door, Opening, after
from workers.operations.figures import sample_figures
from workers.operations.load import behind_the_door
from workers.operations.priorities import priorities
from workers.operations.scaling import decide
from workers.operations.thresholds import Finding, findings
from workers.telling import Telling

log = structlog.get_logger(__name__)

TOPIC = "monitor"
"""What METRICS and ALERT are broadcast to."""

MISSED = 2
"""Reports that a process may miss before it is called silent, which is before the status manager calls it
DOWN: its one alert opens within 15 s of its death."""

WEBHOOK_TIMEOUT_S = 5.0
WEBHOOK_ATTEMPTS = 3

_decoder = msgspec.json.Decoder(OpenAlert)


class Watch:
    """Keeps watch for as long as this worker holds the lease."""

    def __init__(
        self,
        monitoring: Monitoring,
        admission: AdmissionSettings,
        queue_priorities: Priorities,
        scaling: Scaling,
        telling: Telling,
        config: Config,
        boot_id: str,
    ) -> None:
        self._monitoring = monitoring
        self._admission = admission
        self._priorities = queue_priorities
        self._telling = telling
        self._scaling = scaling
        self._config = config
        self._settings = config.monitoring
        self._silence_s = config.status.heartbeat_s * MISSED
        self._boot_id = boot_id
        self._calm = 0
        self._priorities_due_ms = self._scaling_due_ms = 0
        self._sample: Metrics | None = None
        self._posts: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Look every few seconds for as long as the process lives. Runs as a side task."""
        clock = asyncio.get_running_loop().time
        due_s = clock()
        while True:
            try:
                if await self._monitoring.lead(self._boot_id, 2 * self._settings.every_s):
                    await self._look()
                else:
                    self._sample = None
            except StoreAway as error:
                log.warning("cannot watch", cause=str(error))
            due_s = max(due_s + self._settings.every_s, clock())
            await asyncio.sleep(due_s - clock())

    def figures(self) -> Iterator[Metric]:
        """The newest sample for Prometheus; nothing while another worker watches."""
        return iter(()) if self._sample is None else sample_figures(self._sample)

    async def open_alerts(self) -> list[Alert]:
        """The alerts that are open. Raises StoreAway."""
        kept = await self._open()
        return [each.alert for each in kept.values() if each.alert.state is not AlertState.CLOSED]

    async def _open(self) -> Open:
        return {subject: _decoder.decode(kept) for subject, kept in (await self._monitoring.alerts()).items()}

    async def _look(self) -> None:
        sample = await self._monitoring.sample()
        await self._monitoring.keep(sample)
        self._sample = sample
        self._telling.broadcast(TOPIC, sample)
        if sample.at >= self._priorities_due_ms:
            self._priorities_due_ms = sample.at + int(self._settings.priorities_every_s * 1000)
            await self._keep_priorities(sample)
        wrong = [*findings(sample, self._settings, self._silence_s), *await self._keep_door(sample)]
        if sample.at >= self._scaling_due_ms:
            self._scaling_due_ms = sample.at + int(self._config.scaling.every_s * 1000)
            await self._scaling.decide(decide(sample, await self._scaling.decisions(), self._config.scaling))
        alerts = judge(await self._open(), wrong, sample.at, self._settings)
        news = [each.alert for each in alerts.values() if not each.is_told]
        # Kept before it is told and again after: who takes over tells what was not.
        await self._keep(alerts)
        for alert in news:
            self._tell(alert)
        await self._keep(told(alerts), news)

    async def _keep_door(self, sample: Metrics) -> list[Finding]:
        """Slow, close or open the door by what lies behind it. Answers what is wrong with it."""
        share, reason = await self._admission.opening()
        # What is set counts, whoever set it; how long it has been calm is this worker's to know.
        was = Door(Opening(share), self._calm, reason)
        door = after(was, *behind_the_door(sample))
        self._calm = door.calm
        if Opening.OPEN not in (was.opening, door.opening) or was.opening is not door.opening:
            await self._admission.open(door.opening.value, door.reason)
        if door.opening is Opening.OPEN:
            return []
        level = AlertLevel.CRITICAL if door.opening is Opening.CLOSED else AlertLevel.WARNING
        text = f"the door is {door.opening.name}: {door.reason}"
        return [Finding("door", level, text, door.opening.value, Opening.OPEN.value)]

    async def _keep_priorities(self, sample: Metrics) -> None:
        """Say how much more than its share each queue gets."""
        before = await self._priorities.weights([queue.queue_id for queue in sample.queues])
        found = priorities(sample, before, self._settings)
        await self._priorities.set({name: (each.weight, each.reason) for name, each in found.items()})

    async def _keep(self, alerts: Open, news: list[Alert] | None = None) -> None:
        kept = {subject: msgspec.json.encode(each) for subject, each in alerts.items()}
        await self._monitoring.keep_alerts(kept, news or ())

    def _tell(self, alert: Alert) -> None:
        write = log.error if alert.level is AlertLevel.CRITICAL else log.warning
        if alert.state is AlertState.CLOSED:
            write = log.info
        write("alert", state=alert.state.value, subject=alert.subject, says=alert.message, id=alert.id)
        self._telling.broadcast(TOPIC, alert)
        if self._settings.webhook:
            post = asyncio.create_task(self._post(alert))
            self._posts.add(post)
            post.add_done_callback(self._posts.discard)

    async def _post(self, alert: Alert) -> None:
        for attempt in range(1, WEBHOOK_ATTEMPTS + 1):
            try:
                await asyncio.to_thread(_post, self._settings.webhook, msgspec.json.encode(alert))
            except (OSError, ValueError, HTTPException) as error:
                log.warning("webhook fails", attempt=attempt, cause=redact_text(str(error)))
                await asyncio.sleep(attempt)
            else:
                return
        log.error("an alert did not reach the webhook", id=alert.id, says=alert.message)


def _post(url: str, body: bytes) -> None:
    """POST a JSON document. Raises OSError, ValueError for what is no URL, HTTPException for no HTTP."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method="POST")
    with urllib.request.urlopen(request, timeout=WEBHOOK_TIMEOUT_S):
        pass
