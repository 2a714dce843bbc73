"""One credential of one OpenStack: openstacksdk's adapters, made when needed, and REST calls with typed errors."""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast
from urllib.parse import urlencode

import openstack
from keystoneauth1 import exceptions as auth_errors
from keystoneauth1.session import Session
from openstack.config.loader import OpenStackConfig
from openstack.connection import Connection
from openstack.exceptions import ConfigException, SDKException
from openstack.proxy import Proxy

from providers.blocking import Threads
from providers.errors import Absent, Auth, BadRequest, ProviderError, Unknown
from providers.openstack.errors import plain, refusal
from providers.openstack.settings import Settings

CALL_S = 20.0
"""The longest wait for a connection and for each part of an answer."""
CREATE_S = 40.0
LIMIT_S = 75.0
"""When a call is given up: it may log in before, and ask where the service is."""
PAGE = 500
SERVICES = frozenset({"compute", "image", "network"})


class Account:
    """REST calls on threads of their own. Everything that goes wrong leaves as `providers.errors`.

    A `Connection` is not made for several threads; its adapters only read it once they are made, and
    they are made under a lock.
    """

    def __init__(self, name: str, settings: Settings, *, proxy: str = "") -> None:
        self._settings = settings
        self._proxy = proxy
        self._threads = Threads(name, timeout=LIMIT_S)
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._adapters: dict[str, Proxy] = {}
        self._version = ""

    async def get(self, service: str, path: str, **query: str) -> dict[str, Any]:
        """Return the JSON of one page."""
        return (await self._threads.run(self._call, service, "GET", path, query, None))[0]

    async def pages(self, service: str, path: str, key: str, **query: str) -> list[Any]:
        """Return the items under `key` of all pages of a listing."""
        return await self._threads.run(self._pages, service, path, key, query)

    async def post(self, service: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request that changes something, once; neither it nor its answer is ever logged."""
        return (await self._threads.run(self._call, service, "POST", path, {}, body))[0]

    async def delete(self, service: str, path: str) -> None:
        """Send a DELETE, once."""
        await self._threads.run(self._call, service, "DELETE", path, {}, None)

    async def version(self) -> str:
        """Return compute's microversion that is used: the newest both know, at most the settings'."""
        return await self._threads.run(self._microversion)

    async def date(self) -> str:
        """Return the time as compute's answers carry it, an HTTP date."""
        return (await self._threads.run(self._call, "compute", "GET", "/limits", {}, None))[1]

    async def access(self) -> Any:
        """Return who we are to keystone: a `keystoneauth1.access.AccessInfo`."""
        return await self._threads.run(self._access)

    def _call(
        self, service: str, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any] | None
    ) -> tuple[dict[str, Any], str]:
        with _typed_errors():
            options: dict[str, Any] = {"microversion": self._microversion()} if service == "compute" else {}
            if body is not None:
                # With `log`, keystoneauth writes bodies at DEBUG: user data, its join token, and adminPass.
                options |= {"json": body, "log": False, "timeout": CREATE_S}
            answer = self._adapter(service).request(
                f"{path}?{urlencode(query)}" if query else path,
                method,
                connect_retries=0,
                status_code_retries=0,
                raise_exc=False,
                **options,
            )
            if answer.status_code >= 400:
                raise refusal(answer.status_code, _message(answer), answer.headers.get("Retry-After", ""))
            return _json(answer), answer.headers.get("Date", "")

    def _pages(self, service: str, path: str, key: str, query: Mapping[str, str]) -> list[Any]:
        found: list[Any] = []
        asked = {**query, "limit": str(PAGE)}
        while True:
            page, _ = self._call(service, "GET", path, asked, None)
            items = page.get(key, [])
            found += items
            more = any(link.get("rel") == "next" for link in page.get(f"{key}_links", ())) or page.get("next")
            if not items or not more:
                return found
            asked["marker"] = items[-1]["id"]

    def _microversion(self) -> str:
        if self._version:
            return self._version
        with _typed_errors():
            data = self._adapter("compute").get_endpoint_data()
            newest = tuple(data.max_microversion or (2, 1)) if data else (2, 1)
            wanted = tuple(int(part) for part in self._settings.microversion.split("."))
            self._version = ".".join(str(part) for part in min(newest, wanted))
        return self._version

    def _access(self) -> Any:
        with _typed_errors():
            with self._lock:
                session = self._connect().session
            return cast(Any, session.auth).get_access(session)

    def _adapter(self, service: str) -> Proxy:
        if service not in SERVICES:
            raise ValueError(service)
        with self._lock:
            if service not in self._adapters:
                self._adapters[service] = getattr(self._connect(), service)
            return self._adapters[service]

    def _connect(self) -> Connection:
        if self._connection is None:
            cloud = self._settings.cloud if not self._settings.credentials.auth_url else ""
            loader = OpenStackConfig(load_yaml_config=bool(cloud), load_envvars=False, app_name="atoll")
            region = loader.get_one(cloud=cloud or None, **_options(self._settings))
            session: Session = region.get_session()
            if self._proxy:
                _route(session, self._proxy)
            self._connection = openstack.connection.Connection(config=region)
        return self._connection


def _route(session: Session, proxy: str) -> None:
    session.session.trust_env = False  # else the environment's proxies win over these
    session.session.proxies = {"http": proxy, "https": proxy}
    if session.verify is True:
        session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True


def _options(settings: Settings) -> dict[str, Any]:
    options: dict[str, Any] = {"api_timeout": CALL_S, "interface": settings.interface}
    if settings.region:
        options["region_name"] = settings.region
    if settings.ca:
        options |= {"verify": True, "cacert": settings.ca}
    if settings.endpoint:
        options["compute_endpoint_override"] = settings.endpoint
    own = settings.credentials
    if not own.auth_url:
        return options
    if own.application_credential_secret:
        auth = {
            "application_credential_id": own.application_credential_id,
            "application_credential_name": own.application_credential_name,
            "application_credential_secret": own.application_credential_secret,
            "username": own.username,
            "user_domain_name": own.user_domain if own.username else "",
        }
        options["auth_type"] = "v3applicationcredential"
    else:
        auth = {
            "username": own.username,
            "password": own.password,
            "project_name": own.project,
            "user_domain_name": own.user_domain,
            "project_domain_name": own.project_domain,
        }
        options["auth_type"] = "v3password"
    return options | {"auth": {"auth_url": own.auth_url, **{key: value for key, value in auth.items() if value}}}


@contextmanager
def _typed_errors() -> Iterator[None]:
    try:
        yield
    except (auth_errors.ClientException, SDKException, OSError) as error:
        raise _told(error) from None  # the SDK's errors may quote what was sent


def _told(error: Exception) -> ProviderError:
    """Translate what the SDK raises; only HTTP refusals are sure to have changed nothing."""
    if isinstance(error, auth_errors.HttpError):
        found = refusal(error.http_status or 0, error.message or "", "")
        return Auth(str(found)) if isinstance(found, Absent | BadRequest) else found  # keystone refused the login
    if isinstance(error, auth_errors.AuthorizationFailure | auth_errors.MissingRequiredOptions):
        return Auth(plain(str(error)))
    if isinstance(error, ConfigException | auth_errors.EndpointNotFound | auth_errors.NoMatchingPlugin):
        return BadRequest(plain(str(error)), hint="look at cloud, region, interface and credentials of the settings")
    return Unknown(f"no answer from OpenStack: {plain(str(error))}")


def _json(answer: Any) -> dict[str, Any]:
    if not answer.content:
        return {}
    try:
        return cast(dict[str, Any], answer.json())
    except ValueError:
        raise Unknown("OpenStack's answer cannot be read") from None


def _message(answer: Any) -> str:
    """Return the message in an error's JSON (`{"badRequest": {"message": …}}`), else its text."""
    try:
        document = answer.json()
    except ValueError:
        return str(answer.text)
    inner = next((value for value in document.values() if isinstance(value, dict)), document)
    return str(inner.get("message", "")) if isinstance(inner, dict) else ""
