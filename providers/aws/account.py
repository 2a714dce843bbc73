"""One AWS credential in one region: boto3 clients, made when needed, and calls with typed errors."""

import logging
import threading
from datetime import datetime
from typing import Any, cast

import boto3
import botocore.loaders
import botocore.session
from botocore.config import Config
from botocore.credentials import CredentialResolver, DeferredRefreshableCredentials
from botocore.credentials import Credentials as Keys
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
)

from providers.aws.errors import classify
from providers.aws.settings import Credentials, Settings
from providers.blocking import Threads
from providers.errors import Auth, BadRequest, ProviderError, Unknown

CONNECT_S, READ_S = 5.0, 20.0
READ_ATTEMPTS = 2
ROLE_S = 3600
_MODELS = botocore.loaders.create_loader()
"""The SDK's descriptions of AWS's services: large, and the same for all accounts."""
_PRICING = {"cn": "cn-northwest-1", "eu": "eu-central-1", "ap": "ap-south-1"}
_NO_CREDENTIAL = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, ProfileNotFound, SSOError)

for _name in ("botocore", "boto3", "urllib3"):
    # At DEBUG botocore writes whole request bodies, user data and its join token with them (I9).
    logging.getLogger(_name).setLevel(logging.INFO)


class Account:
    """Calls to AWS on threads of their own. Everything that goes wrong leaves as `providers.errors`."""

    def __init__(self, name: str, settings: Settings, *, proxy: str = "", timeout: float = 60.0) -> None:
        self._settings = settings
        self._proxies = {"http": proxy, "https": proxy} if proxy else None
        self._threads = Threads(name, timeout=timeout)
        self._clients: dict[tuple[str, bool], Any] = {}
        self._lock = threading.Lock()  # boto3 clients may be shared between threads, making them may not
        self._session: botocore.session.Session | None = None

    async def ask(self, service: str, operation: str, **parameters: Any) -> dict[str, Any]:
        """Make a call that changes nothing; asked twice where the first try gets no answer."""
        return await self._threads.run(self._call, service, operation, parameters, False)

    async def order(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """Make a call to EC2 that changes something, exactly once."""
        return await self._threads.run(self._call, "ec2", operation, parameters, True)

    async def pages(self, service: str, operation: str, key: str, page: int, **parameters: Any) -> list[Any]:
        """Return the items under `key` of all pages of a listing."""
        return await self._threads.run(self._pages, service, operation, key, page, parameters)

    def _call(self, service: str, operation: str, parameters: dict[str, Any], once: bool) -> dict[str, Any]:
        try:
            return cast(dict[str, Any], getattr(self._client(service, once), operation)(**parameters))
        except (BotoCoreError, ClientError) as error:
            raise _told(error) from _cause(error)

    def _pages(self, service: str, operation: str, key: str, page: int, parameters: dict[str, Any]) -> list[Any]:
        try:
            paginator = self._client(service, False).get_paginator(operation)
            answers = paginator.paginate(**parameters, PaginationConfig={"PageSize": page})
            return [item for answer in answers for item in answer.get(key, [])]
        except (BotoCoreError, ClientError) as error:
            raise _told(error) from _cause(error)

    def _client(self, service: str, once: bool) -> Any:
        with self._lock:
            if (client := self._clients.get((service, once))) is None:
                self._session = self._session or self._open()
                client = self._clients[service, once] = self._make(self._session, service, once)
            return client

    def _open(self) -> botocore.session.Session:
        credentials = self._settings.credentials
        session = _session(credentials.profile)
        if credentials.access_key_id:
            session.set_credentials(
                credentials.access_key_id, credentials.secret_access_key, credentials.session_token or None
            )
        if credentials.role_arn:
            base = session
            session = _session()
            session.register_component("credential_provider", _Resolver(self._role(base, credentials)))
        return session

    def _role(self, base: botocore.session.Session, credentials: Credentials) -> DeferredRefreshableCredentials:
        client = self._make(base, "sts", False)
        asked = {"RoleArn": credentials.role_arn, "RoleSessionName": "atoll", "DurationSeconds": ROLE_S}
        if credentials.external_id:
            asked["ExternalId"] = credentials.external_id

        def assume() -> dict[str, str]:
            given = client.assume_role(**asked)["Credentials"]
            until: datetime = given["Expiration"]
            return {
                "access_key": given["AccessKeyId"],
                "secret_key": given["SecretAccessKey"],
                "token": given["SessionToken"],
                "expiry_time": until.isoformat(),
            }

        return DeferredRefreshableCredentials(refresh_using=assume, method="assume-role")

    def _make(self, session: botocore.session.Session, service: str, once: bool) -> Any:
        region = pricing_region(self._settings.region) if service == "pricing" else self._settings.region
        return cast(Any, boto3.Session(botocore_session=session)).client(
            service,
            region_name=region,
            endpoint_url=self._settings.endpoint or None,
            config=Config(
                connect_timeout=CONNECT_S,
                read_timeout=READ_S,
                retries={"mode": "standard", "total_max_attempts": 1 if once else READ_ATTEMPTS},
                proxies=self._proxies,
                max_pool_connections=16,
                user_agent_extra="atoll",
            ),
        )


def _session(profile: str = "") -> botocore.session.Session:
    session = botocore.session.Session(profile=profile or None)
    session.register_component("data_loader", _MODELS)
    return session


class _Resolver(CredentialResolver):
    """Answers with credentials that exist already."""

    def __init__(self, credentials: Keys) -> None:
        super().__init__([])
        self._credentials = credentials

    def load_credentials(self) -> Keys:
        return self._credentials


def pricing_region(region: str) -> str:
    """Return the region whose price list endpoint is nearest: there are few, and each knows all prices."""
    return _PRICING.get(region.partition("-")[0], "us-east-1")


def _told(error: BotoCoreError | ClientError) -> ProviderError:
    if isinstance(error, ClientError):
        said = error.response.get("Error", {})
        answer = cast(dict[str, Any], error.response.get("ResponseMetadata", {}))
        return classify(
            str(said.get("Code", "")),
            str(said.get("Message", "")),
            int(answer.get("HTTPStatusCode", 0)),
            retry_after=_seconds(answer.get("HTTPHeaders", {}).get("retry-after", "")),
        )
    if isinstance(error, ParamValidationError):
        return BadRequest("the request has a parameter that the AWS SDK does not take")
    if isinstance(error, _NO_CREDENTIAL):
        return Auth(f"no AWS credential: {error}", hint="set provider.settings.credentials, or the SDK's own sources")
    return Unknown(f"no answer from AWS: {error}")


def _cause(error: Exception) -> Exception | None:
    return None if isinstance(error, ParamValidationError) else error  # its text repeats the values


def _seconds(text: str) -> float:
    return float(text) if text.isdecimal() else 0.0
