"""The watch: samples the whole system and tells what is wrong. One operations worker at a time keeps it."""

import asyncio
import urllib.request

import msgspec
import structlog

from protocol.messages.monitor import Alert, AlertLevel, AlertState
from runtime.logging import redact_text
from runtime.settings import MonitoringSettings, StatusSettings
from storage.errors import StoreAway
from storage.monitoring import Monitoring
from workers.operations.alerts import Open, OpenAlert, judge, told
from workers.operations.thresholds import findings
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
        telling: Telling,
        settings: MonitoringSettings,
        status: StatusSettings,
        boot_id: str,
    ) -> None:
        self._monitoring = monitoring
        self._telling = telling
        self._settings = settings
        self._silence_s = status.heartbeat_s * MISSED
        self._boot_id = boot_id
        self._posts: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Look every few seconds for as long as the process lives. Runs as a side task."""
        clock = asyncio.get_running_loop().time
        due_s = clock()
        while True:
            try:
                if await self._monitoring.lead(self._boot_id, 2 * self._settings.every_s):
                    await self._look()
            except StoreAway as error:
                log.warning("cannot watch", cause=str(error))
            due_s = max(due_s + self._settings.every_s, clock())
            await asyncio.sleep(due_s - clock())

    async def open_alerts(self) -> list[Alert]:
        """The alerts that are open. Raises StoreAway."""
        kept = await self._open()
        return [each.alert for each in kept.values() if each.alert.state is not AlertState.CLOSED]

    async def _open(self) -> Open:
        return {subject: _decoder.decode(kept) for subject, kept in (await self._monitoring.alerts()).items()}

    async def _look(self) -> None:
        sample = await self._monitoring.sample()
        await self._monitoring.keep(sample)
        self._telling.broadcast(TOPIC, sample)
        wrong = findings(sample, self._settings, self._silence_s)
        alerts = judge(await self._open(), wrong, sample.at, self._settings)
        news = [each.alert for each in alerts.values() if not each.is_told]
        # Kept before it is told and again after: who takes over tells what was not.
        await self._keep(alerts)
        for alert in news:
            self._tell(alert)
        await self._keep(told(alerts), news)

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
            except (OSError, ValueError) as error:
                log.warning("webhook fails", attempt=attempt, cause=redact_text(str(error)))
                await asyncio.sleep(attempt)
            else:
                return
        log.error("an alert did not reach the webhook", id=alert.id, says=alert.message)


def _post(url: str, body: bytes) -> None:
    """POST a JSON document. Raises OSError, ValueError for what is no URL."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method="POST")
    with urllib.request.urlopen(request, timeout=WEBHOOK_TIMEOUT_S):
        pass
