"""A certificate authority whose certificates are none, and its rotation."""

from dataclasses import replace

from atoll.errors import Conflict
from federation.control.rotation import Ca, CaStanding
from tunnel.certificates import Bearer


class FakeAuthority:
    """Signs by writing down whose certificate it is, and which: for links in memory, which carry none."""

    pin = "ab" * 32
    ca_pem = "-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n"

    rotating = False

    def rotate(self, now: float) -> None:
        raise Conflict("there is no CA here")

    def keep(self, now: float) -> None:
        pass

    def retire(self, now: float) -> None:
        raise Conflict("there is no CA here")

    def key_of(self, csr_pem: str) -> str:
        return csr_pem

    def agent_of(self, certificate_pem: str, csr_pem: str) -> Bearer:
        agent, _, generation = certificate_pem.rpartition(" ")[2].partition("/")
        return Bearer(agent, int(generation or 0))

    def sign_relay(self, csr_pem: str, relay: str, *, now: float, ttl_s: float) -> str:
        return f"certificate of {relay}"

    def sign_agent(self, csr_pem: str, agent_id: str, *, generation: int, ttl_s: float, now: float) -> str:
        return f"{csr_pem} signed for {agent_id}/{generation}"


class FakeRotation:
    """One CA, or two."""

    def __init__(self) -> None:
        self.cas = [Ca("ab" * 32, 0.0, 1.0, signs=True)]
        self.behind = {"attic": "not connected since"}

    async def standing(self) -> CaStanding:
        return CaStanding(self.cas, self.behind if len(self.cas) > 1 else {})

    async def rotate(self, by: str) -> CaStanding:
        if len(self.cas) > 1:
            raise Conflict("the CA is being rotated already")
        self.cas = [Ca("cd" * 32, 1.0, 2.0, signs=True), replace(self.cas[0], signs=False)]
        return await self.standing()

    async def retire(self, by: str, *, force: bool = False) -> CaStanding:
        if not force:
            raise Conflict("1 agents would be locked out: attic: not connected since")
        self.cas = self.cas[:1]
        return await self.standing()
