"""Which services are asked for where: the catalogue with the demo's weights."""

from datetime import date
from typing import Any, NamedTuple

from api.demo.seed import Seed
from api.models.support_events import Channel

_POPULAR = {  # how often beside the others, which are 1
    "ID.ACTIVATE": 9.0,
    "ID.USE": 5.0,
    "PS.ACCOUNT": 6.0,
    "PS.GUIDE": 8.0,
    "PS.SUBMIT": 6.0,
    "AP.INSTALL": 3.0,
    "PY.BANK": 4.0,
    "PY.WALLET": 3.0,
    "PY.USE": 4.0,
    "PY.BILL": 3.0,
    "HL.EHR": 3.0,
    "HL.DECLARE": 0.5,
    "SI.VSSID": 4.0,
    "SK.PHONE": 6.0,
    "SK.BASIC5": 2.0,
    "CO.OUTREACH": 2.0,
    "CO.ZALO": 0.3,
    "TC.DIGITISE": 0.2,
    "TR.TEAM": 0.5,
}
_AT_HOME = {
    Channel.one_stop_desk: {"public_services", "identity"},
    Channel.market: {"payments", "e_commerce"},
    Channel.cooperative: {"e_commerce", "agriculture", "payments"},
    Channel.training: {"skills", "training", "safety"},
    Channel.meeting: {"community", "identity", "safety"},
    Channel.campaign_day: {"identity", "provincial_apps", "community"},
}
_AT_HOME_FACTOR = 5
_ACTIVE = """
    select code, category, unit_of_count, active_from, active_to
    from service_type
    where province_key is null and deleted_at is null
    order by code
"""


class Service(NamedTuple):
    """A service of the catalogue."""

    code: str
    category: str
    unit_of_count: str
    active_from: date | None
    active_to: date | None

    def active(self, day: date) -> bool:
        """Tell whether it was offered on that day."""
        return (self.active_from or day) <= day <= (self.active_to or day)


class Catalogue:
    """Draws services as each channel asks for them."""

    def __init__(self, services: list[Service]) -> None:
        """`services` are those of the whole country."""
        self._services = services
        self._weights = {
            channel: [
                _POPULAR.get(service.code, 1.0)
                * (_AT_HOME_FACTOR if service.category in _AT_HOME.get(channel, ()) else 1)
                for service in services
            ]
            for channel in Channel
        }

    def draw(self, seed: Seed, channel: Channel, day: date) -> Service:
        """Return a service that was offered on the day."""
        while True:
            service = seed.random.choices(self._services, self._weights[channel])[0]
            if service.active(day):
                return service


async def read(connection: Any) -> Catalogue:
    """Read the services of the whole country."""
    return Catalogue([Service(*row) for row in await connection.fetch(_ACTIVE)])
