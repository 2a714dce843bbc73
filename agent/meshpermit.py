"""What the owner of a machine permits: whether it may be a gateway of a mesh, and for which networks."""

from pathlib import Path

import msgspec

from atoll.errors import Invalid
from atoll.host.files import write_private
from atoll.mesh import check_endpoint, check_subnet


class Permit(msgspec.Struct, frozen=True, kw_only=True):
    """What the owner of this machine permits: that it is a gateway, found at `endpoint`, for `subnets` of its site.

    `port` is where it listens for UDP (0: the endpoint's, or any).
    """

    endpoint: str = ""
    port: int = 0
    subnets: list[str] = []

    @classmethod
    def load(cls, directory: Path) -> "Permit | None":
        """Return the permit kept in a gateway's directory, None where there is none; raise `Invalid` for a bad one."""
        try:
            return msgspec.json.decode((directory / "permit.json").read_bytes(), type=cls).checked()
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as error:
            raise Invalid(f"{directory / 'permit.json'} is damaged: {error}", hint="atoll agent mesh --off") from error

    def save(self, directory: Path) -> None:
        """Keep it. Raises `Invalid` or `Refused`."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(directory / "permit.json", msgspec.json.encode(self.checked()))

    def checked(self) -> "Permit":
        """Return it as it is written normally; raise `Invalid` for what no mesh may have."""
        if self.endpoint:
            check_endpoint(self.endpoint)
        if not 0 <= self.port < 65536:
            raise Invalid(f"{self.port} is no port", hint="1 to 65535")
        return Permit(endpoint=self.endpoint, port=self.port, subnets=[check_subnet(each) for each in self.subnets])

    @property
    def listens(self) -> int:
        """The UDP port to listen on, 0 for any."""
        return self.port or (check_endpoint(self.endpoint)[1] if self.endpoint else 0)
